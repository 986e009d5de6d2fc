"""Every parser of bytes from outside, fed with anything: it answers or refuses with an error of ours, and never hangs.

Inputs are noise, and real bytes with something changed, which get further. `make fuzz` runs many more, and `make fuzz-inputs` a
million each of a plainer kind. The parsers are those of tests/fuzzing/parsers.py.
"""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup.model import gtid
from kpbackup.service import guard
from kpbackup.service import http as web
from tests.fuzzing import __main__ as fuzzing
from tests.fuzzing.mutation import mutations
from tests.fuzzing.parsers import PARSERS, Parser

EXAMPLES = int(os.environ.get("KPBACKUP_FUZZ_EXAMPLES", "60"))


def changed(*originals: bytes) -> st.SearchStrategy[bytes]:
    """One of the originals with a stretch replaced, left out or put in twice; or noise."""

    @st.composite
    def mutation(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(originals))
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, len(data)))
            end = min(len(data), start + draw(st.integers(0, 12)))
            data = data[:start] + draw(st.binary(max_size=12)) + data[end:]
        return data

    return mutation() | st.binary(max_size=300)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_answers_or_refuses(name: str) -> None:
    parser = PARSERS[name]

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(changed(*parser.originals))
    def fuzzed(data: bytes) -> None:
        parser.feed(data)

    fuzzed()
    for data in itertools.islice(mutations(parser.originals, name), 10 * EXAMPLES):
        parser.feed(data)


def test_the_fuzzer_finds_a_crash_and_a_hang_and_a_seed_gives_the_same_again() -> None:
    def crashes(data: bytes) -> None:
        if b"\xff\xff" in data:
            raise IndexError("beyond the end")

    def hangs(data: bytes) -> None:
        while len(data) == 3:
            pass

    def fuzz(parser: Parser, *, seed: int = 1) -> str:
        return str(fuzzing.fuzz("it", parser, inputs=5000, seed=seed, seconds=60, patience_s=0.2)["failure"])

    crash = fuzz(Parser(crashes, (b"original",)))
    assert "IndexError: beyond the end" in crash and "ffff" in crash
    assert fuzz(Parser(crashes, (b"original",))) == crash != fuzz(Parser(crashes, (b"original",)), seed=2)
    assert fuzz(Parser(crashes, (b"original",), (IndexError,))) == ""
    assert "Hang" in fuzz(Parser(hangs, (b"abcd",)))


GTID_TEXT = st.text(st.sampled_from("0123456789abcdef-:, \n_ABC\u00e9"), max_size=80)
REAL_GTIDS = st.sampled_from(["1-11-45", "0-1-2,1-11-45", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,tag:9"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(GTID_TEXT | st.builds(lambda text, noise, at: text[:at] + noise + text[at:], REAL_GTIDS, GTID_TEXT, st.integers(0, 40)))
def test_gtid_sets(text: str) -> None:
    for parse in (gtid.MysqlGtidSet.parse, gtid.MariadbGtidPosition.parse, gtid.MariadbGtid.parse):
        try:
            parse(text)
        except ValueError as refused:  # what they promise to raise; their callers say what was being read
            assert str(refused).startswith("not a ")


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(max_size=60) | st.builds(lambda scheme, rest: f"{scheme} {rest}", st.sampled_from(["Basic", "Bearer"]), st.text()))
def test_an_authorization_header_lets_nobody_in(header: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        secret = Path(directory) / "secret"
        secret.write_bytes(b"a secret that no fuzzer guesses\n")
        assert not guard.Access("user", str(secret), str(secret)).allows(header)


def test_http_requests_of_any_kind() -> None:
    pages: web.Pages = {"/": lambda query: web.text_answer("here")}
    with web.WebServer(("127.0.0.1", 0), pages) as server:
        server.start()

        @settings(max_examples=EXAMPLES, deadline=None)
        @given(changed(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eA==\r\n\r\n", b"HEAD /?a=b HTTP/1.0\r\n\r\n"))
        def fuzzed(data: bytes) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass

        fuzzed()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"here", "and it still serves"
        connection.close()
