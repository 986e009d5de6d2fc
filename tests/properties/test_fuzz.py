"""Every parser of bytes from outside, fed with anything: it answers or refuses with an error of ours, and never hangs.

Inputs are noise, and real bytes with something changed, which get further. `make fuzz` runs many more.
"""

from __future__ import annotations

import http.client
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup import config, errors
from kpbackup.model import canonical, codec, gtid, heads, manifest
from kpbackup.mysql import binlog_file, events, query_event, row_events
from kpbackup.pipeline import age_header, compress, encrypt, sign
from kpbackup.repository import objects
from kpbackup.service import guard
from kpbackup.service import http as web
from tests.vectors.vector import HOME, Vector

EXAMPLES = int(os.environ.get("KPBACKUP_FUZZ_EXAMPLES", "60"))
REPOSITORY = HOME / "repository"
VECTOR = Vector(REPOSITORY)


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


def refuses_or_answers(parse: Callable[[Any], object], given_bytes: Any) -> None:
    try:
        parse(given_bytes)
    except errors.InternalError:
        raise
    except errors.KpbackupError:
        pass


def _objects(prefix: str) -> list[bytes]:
    return [path.read_bytes() for path in VECTOR.files(prefix)]


def _binlog() -> bytes:
    """A segment of the frozen repository, opened."""
    from kpbackup.model.manifest import BinlogSegment
    from kpbackup.pipeline import stream
    from kpbackup.repository import keys

    repository = VECTOR.repository()
    path = VECTOR.files("timelines/0001/segments/")[0]
    segment, offset = repository.read(VECTOR.key_of(path), BinlogSegment)
    opened = keys.open_data_key(repository, segment.sealing, VECTOR.identities)
    return b"".join(stream.unseal((path.read_bytes()[offset:],), (opened,)))


BINLOG = _binlog()
SEALED = _objects("data/")[0]
AGE_HEADER = SEALED[: age_header.find_end(SEALED, complete=True)]
EVENTS = [bytes(one.data) for one in binlog_file.read_file((BINLOG,), file="binlog.000001")]


def _read_manifest(data: bytes) -> object:
    return objects.parse(data, key="timelines/0001/sets/2026-11/0000000001", public_keys=VECTOR.public_keys)


def _decoded_as(kind: type) -> Callable[[bytes], object]:
    return lambda data: codec.decode(kind, canonical.loads(data, what="it"), what="it")


def _decrypt(data: bytes) -> object:
    decryptor = encrypt.Decryptor(VECTOR.identities)
    return decryptor.decrypt(data) + decryptor.finish()


def _decompress(data: bytes) -> object:
    unpack = compress.Decompressor()
    size = sum(len(piece) for piece in unpack.decompress(data))
    unpack.finish()
    return size


def _settings(data: bytes) -> object:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        return config.load(file.name, {})


def _signature(data: bytes) -> object:
    return sign.verify(b"text", data.decode("utf-8", "replace"), VECTOR.public_keys)


MANIFESTS = [data.split(b"\n")[4] for data in _objects("timelines/") if data.count(b"\n") >= 5]
EXAMPLE_SETTINGS = (Path(__file__).resolve().parents[2] / "kpbackup.example.yaml").read_bytes()
PARSERS: dict[str, tuple[Callable[[bytes], object], st.SearchStrategy[bytes]]] = {
    "signed manifest": (_read_manifest, changed(*_objects("timelines/"))),
    "set": (_decoded_as(manifest.BackupSet), changed(*MANIFESTS)),
    "segment": (_decoded_as(manifest.BinlogSegment), changed(*MANIFESTS)),
    "head file": (_decoded_as(heads.Heads), changed(b'{"links":{},"logs":{"timelines":1},"repository":"x"}')),
    "minisign": (_signature, changed((REPOSITORY / "reader-1.py.minisig").read_bytes())),
    "age header": (age_header.parse, changed(AGE_HEADER)),
    "age file": (_decrypt, changed(*_objects("keys/"))),
    "zstd": (_decompress, changed(b"\x28\xb5\x2f\xfd\x04\x58\x29\x00\x00kpbackup")),
    "binlog": (lambda data: list(binlog_file.read_file((data,), file="binlog.000001")), changed(BINLOG)),
    "settings": (_settings, changed(EXAMPLE_SETTINGS, b"source: {host: h, user: u}\nretention: {days: 3}\n")),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_answers_or_refuses(name: str) -> None:
    parse, inputs = PARSERS[name]

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(inputs)
    def fuzzed(data: bytes) -> None:
        refuses_or_answers(parse, data)

    fuzzed()


EVENT_PARSERS: dict[str, Callable[[bytes], object]] = {
    "header": events.header,
    "checksum algorithm": events.checksum_algorithm,
    "rotate": events.rotate_target,
    "heartbeat": events.heartbeat_position,
    "query text": events.query_text,
    "query database": events.query_database,
    "MariaDB GTID": events.mariadb_gtid,
    "MySQL GTID": events.mysql_gtid,
    "query": query_event.parse,
    "table map": row_events.parse_table_map,
}


@pytest.mark.parametrize("name", EVENT_PARSERS)
def test_an_event_is_read_or_refused(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(changed(*EVENTS))
    def fuzzed(data: bytes) -> None:
        refuses_or_answers(EVENT_PARSERS[name], data)

    fuzzed()


GTID_TEXT = st.text(st.sampled_from("0123456789abcdef-:, \n_ABC\u00e9"), max_size=80)
REAL_GTIDS = st.sampled_from(["1-11-45", "0-1-2,1-11-45", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,tag:9"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(GTID_TEXT | st.builds(lambda text, noise, at: text[:at] + noise + text[at:], REAL_GTIDS, GTID_TEXT, st.integers(0, 40)))
def test_gtid_sets(text: str) -> None:
    parsers: tuple[Callable[[str], object], ...] = (
        gtid.MysqlGtidSet.parse, gtid.MariadbGtidPosition.parse, gtid.MariadbGtid.parse,
    )  # fmt: skip
    for parse in parsers:
        try:
            refuses_or_answers(parse, text)
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
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass

        fuzzed()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"here", "and it still serves"
        connection.close()
