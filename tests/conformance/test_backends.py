"""What `storage.backend.Backend` promises, asked of every backend: a directory and a real S3 server."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.storage import Backend, Capabilities, ObjectInfo, open_backend
from kpbackup.storage.probe import probe
from tests.servers.s3 import S3Server

MIB = 1 << 20


@pytest.fixture(params=["local", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url_and_endpoint(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    if kind == "local":
        return (tmp_path / "with space é").as_uri(), None
    request.getfixturevalue("aws_environment")
    server: S3Server = request.getfixturevalue("s3")
    return f"s3://{request.getfixturevalue('s3_bucket')}/some/prefix", server.endpoint_url


@pytest.fixture
def s3_bucket(s3: S3Server, s3_bucket: str) -> Iterator[str]:
    """A new bucket, deleted afterwards: each one takes some of the few volumes a small SeaweedFS has."""
    client = s3.client()  # now: a test may spoil the environment it is made from
    yield s3_bucket
    client.delete_bucket(Bucket=s3_bucket)
    client.close()


@pytest.fixture
def store(url_and_endpoint: tuple[str, str | None]) -> Iterator[Backend]:
    url, endpoint_url = url_and_endpoint
    backend = open_backend(url, endpoint_url=endpoint_url)
    yield backend
    backend.close()


@pytest.fixture
def leftovers(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], list[str]]:
    """Names of what lies in the store besides objects: temporary files, unfinished uploads."""

    def of_directory() -> list[str]:
        return [str(path) for path in tmp_path.rglob(".kpbackup-tmp/*") if path.name != "lock"]

    def of_bucket() -> list[str]:
        client = request.getfixturevalue("s3").client()
        uploads = client.list_multipart_uploads(Bucket=request.getfixturevalue("s3_bucket")).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

    return of_directory if kind == "local" else of_bucket


def keys(found: Iterator[ObjectInfo]) -> list[str]:
    return [info.key for info in found]


# -- put, get, read, head


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_an_object_comes_back_as_it_was_put(store: Backend, size: int) -> None:
    content = os.urandom(size)
    info = store.put("sets/one", (content[start : start + 100_000] for start in range(0, size, 100_000)), size_hint=size)
    assert (info.key, info.size_bytes) == ("sets/one", size)
    assert store.head("sets/one") == info
    assert list(store.list("")) == [info]
    assert store.read("sets/one") == content
    pieces = list(store.get("sets/one"))
    assert b"".join(pieces) == content and all(0 < len(piece) <= MIB for piece in pieces)


def test_ranges_are_slices(store: Backend) -> None:
    content = os.urandom(20 * MIB + 3)
    store.put("o", [content])
    edges = [0, 1, 8 * MIB - 1, 8 * MIB, 20 * MIB, len(content) - 1, len(content), len(content) + 9]
    for offset, length in itertools.product(edges, [None, 0, 1, 70_000, 9 * MIB]):
        end = None if length is None else offset + length
        assert b"".join(store.get("o", offset=offset, length=length)) == content[offset:end], (offset, length)


def test_read_has_a_limit(store: Backend) -> None:
    store.put("o", [b"x" * 100_001])
    assert len(store.read("o", limit_bytes=100_001)) == 100_001
    with pytest.raises(errors.StorageError, match="larger than"):
        store.read("o", limit_bytes=100_000)


def test_put_overwrites_and_changes_the_etag(store: Backend) -> None:
    first = store.put("o", [b"one"])
    second = store.put("o", [b"two"])
    assert store.read("o") == b"two" and first.etag != second.etag
    long = store.put("o", [b"l" * (9 * MIB)])
    assert store.head("o") == long and store.put("o", [b"m" * (9 * MIB)]).etag != long.etag


NAMES = ["plain", "a b+c%2F&=?#", "ünïcode/é", "emoji/😀", "dots/..x/.y", "tilde~/quote'\"", "x" * 255, "/".join("d" * 40)]


@pytest.mark.parametrize("key", NAMES)
def test_unusual_keys_are_plain_names(store: Backend, key: str) -> None:
    store.put(key, [key.encode()])
    store.put_if_absent(key + "2" if len(key) < 255 else "y" * 255, b"")
    assert store.read(key) == key.encode()
    assert key in keys(store.list("")) and key in keys(store.list(key[:3]))
    store.delete(key)
    assert key not in keys(store.list(""))


BAD_KEYS = ["", "/", "/abs", "a//b", "a/", ".", "..", "a/../b", "../b", "./a", "a/."]
BAD_KEYS += ["nul\0", "back\\slash", "line\n", "\ud800", "x" * 1001]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_escape_or_vanish_are_refused(store: Backend, key: str) -> None:
    store.put("keep", [b"k"])
    calls: list[Callable[[], object]] = [
        functools.partial(store.put, key, [b"x"]),
        functools.partial(store.put_if_absent, key, b"x"),
        functools.partial(store.replace, key, b"x", etag="e"),
        functools.partial(store.read, key),
        functools.partial(store.head, key),
        functools.partial(store.delete, key),
    ]
    for call in calls:
        with pytest.raises(errors.StorageError, match="invalid object key"):
            call()
    assert keys(store.list("")) == ["keep"]


@pytest.mark.parametrize("prefix", ["..", "../", "/", "a//", "a/../b", "./"])
def test_prefixes_cannot_escape_either(store: Backend, prefix: str) -> None:
    with pytest.raises(errors.StorageError, match="invalid key prefix"):
        list(store.list(prefix))
    with pytest.raises(errors.StorageError, match="invalid key prefix"):
        list(store.list_prefixes(prefix))


def test_what_is_missing_is_said_to_be(store: Backend, kind: str) -> None:
    store.put("a/b", [b"x"])
    for key in ("nope", "a", "a/b/c", "nope/nope"):
        for call in (
            store.head,
            store.read,
            lambda key: next(store.get(key)),
            lambda key: next(store.get(key, offset=5, length=0)),
        ):
            with pytest.raises(errors.ObjectMissing, match="does not exist"):
                call(key)
        store.delete(key)
    store.delete("a/b")
    store.delete("a/b")
    assert keys(store.list("")) == []
    if kind == "local":  # SeaweedFS keeps empty directories for a while
        assert list(store.list_prefixes("")) == []


# -- conditions


def test_create_only_creates_once(store: Backend) -> None:
    info = store.put_if_absent("leases/full", b"mine")
    assert info == store.head("leases/full") and info.size_bytes == 4
    for data in (b"yours", b"mine"):  # the same bytes are no excuse
        with pytest.raises(errors.ObjectExists, match="exists already"):
            store.put_if_absent("leases/full", data)
    assert store.read("leases/full") == b"mine"


def test_of_eight_racing_creators_exactly_one_wins(store: Backend) -> None:
    for round_ in range(5):
        key, start = f"manifests/{round_}", threading.Barrier(8)

        def create(number: int, key: str = key, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                store.put_if_absent(key, b"%d" % number)
            except errors.ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert won.count(True) == 1
        assert store.read(key) == b"%d" % won.index(True)


def test_replace_needs_the_current_etag(store: Backend) -> None:
    first = store.put_if_absent("lease", b"1")
    second = store.replace("lease", b"2", etag=first.etag)
    assert second == store.head("lease")
    with pytest.raises(errors.PreconditionFailed):
        store.replace("lease", b"3", etag=first.etag)
    assert store.read("lease") == b"2"
    store.delete("lease")
    with pytest.raises(errors.PreconditionFailed):
        store.replace("lease", b"3", etag=second.etag)
    assert keys(store.list("")) == []


def test_of_eight_racing_replacers_exactly_one_wins(store: Backend) -> None:
    before = store.put_if_absent("lease", b"start")

    def take(number: int) -> bool:
        try:
            store.replace("lease", b"holder %d" % number, etag=before.etag)
        except errors.PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(take, range(8)))
    assert won.count(True) == 1
    assert store.read("lease") == b"holder %d" % won.index(True)


def test_the_probe_finds_what_this_store_can_do(store: Backend, kind: str) -> None:
    assert probe(store) == probe(store) == Capabilities(True, True, kind == "s3") == store.capabilities
    assert {key.split("/")[0] for key in keys(store.list(""))} == {"probes"}


# -- listing


@pytest.mark.slow
def test_listing_goes_on_beyond_one_page(store: Backend) -> None:
    wanted = [f"many/{number // 400:02}/{number:05}" for number in range(1_205)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put_if_absent(key, b""), wanted[::-1]))
        list(pool.map(lambda number: store.put_if_absent(f"flat/{number:04}/o", b""), range(1_005)))
    assert keys(store.list("many/")) == wanted
    assert keys(store.list("many/01/004")) == wanted[400:500]
    assert keys(store.list("many/", after="many/02/01100")) == wanted[1_101:]
    store.delete_all([*wanted[:1_100], "many/nope/x"])
    assert keys(store.list("many/")) == wanted[1_100:]
    store.delete_all([])
    for key in wanted[:1_100:400]:
        store.put_if_absent(key, b"")
    assert list(store.list_prefixes("many/")) == ["many/00/", "many/01/", "many/02/", "many/03/"]
    assert list(store.list_prefixes("flat/")) == [f"flat/{number:04}/" for number in range(1_005)]
    assert list(store.list_prefixes("")) == ["flat/", "many/"]


def test_listing_begins_after_a_key(store: Backend) -> None:
    wanted = [f"log/{month}/{number:03}" for month in ("2026-01", "2026-02", "2026-11") for number in range(3)]
    for key in (*wanted, "log-2/x", "logs"):
        store.put_if_absent(key, b"")
    for place, key in enumerate(wanted):
        assert keys(store.list("log/", after=key)) == wanted[place + 1 :]
        assert keys(store.list("log/", after=key + "x")) == wanted[place + 1 :]
    assert keys(store.list("log/", after="log/2026-02/")) == wanted[3:]
    assert keys(store.list("log/2026-02/", after="log/2026-01/002")) == wanted[3:6]
    assert keys(store.list("log/2026-01/", after="log/2026-02/001")) == []
    assert keys(store.list("log/", after="log/2026-03")) == wanted[6:]
    assert keys(store.list("log/", after="log")) == wanted


def test_prefixes_are_text_not_directories(store: Backend) -> None:
    for key in ("a/b", "a-b", "ab/c", "ab/d/e", "b", "é/x"):
        store.put(key, [b""])
    assert sorted(keys(store.list("a"))) == ["a-b", "a/b", "ab/c", "ab/d/e"]
    assert keys(store.list("ab")) == ["ab/c", "ab/d/e"]
    assert keys(store.list("ab/d")) == keys(store.list("ab/d/")) == ["ab/d/e"]
    assert keys(store.list("nope")) == keys(store.list("b/")) == keys(store.list("ab/c/")) == []
    assert list(store.list_prefixes("")) == ["a/", "ab/", "é/"]
    assert list(store.list_prefixes("ab/")) == ["ab/d/"]
    assert list(store.list_prefixes("a")) == ["a/", "ab/"]


def test_order_is_that_of_utf8_bytes(store: Backend) -> None:
    wanted = sorted(["A", "Z", "a", "a-", "a.b", "a0", "z", "é", "ﬀ", "😀"], key=str.encode)
    for key in wanted[::-1]:
        store.put(key, [b""])
    assert keys(store.list("")) == wanted


# -- failures


class Breaks:
    """Chunks that end in an exception after `size` bytes."""

    def __init__(self, size: int, reason: BaseException) -> None:
        self.size, self.reason = size, reason

    def __iter__(self) -> Iterator[bytes]:
        yield from itertools.repeat(b"x" * MIB, self.size // MIB)
        raise self.reason


REASONS = [RuntimeError("dump failed"), OSError(28, "not ours"), KeyboardInterrupt(), GeneratorExit(), SystemExit(143)]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: type(reason).__name__)
@pytest.mark.parametrize("size", [0, 5 * MIB, 27 * MIB])
def test_a_stream_that_breaks_leaves_nothing(
    store: Backend, leftovers: Callable[[], list[str]], size: int, reason: BaseException
) -> None:
    store.put("old", [b"old content"])
    for key in ("new", "old"):
        with pytest.raises(type(reason)) as caught:
            store.put(key, Breaks(size, reason))
        assert caught.value is reason
    assert keys(store.list("")) == ["old"] and store.read("old") == b"old content"
    with pytest.raises(errors.ObjectMissing):
        store.head("new")
    assert leftovers() == []


def test_nothing_is_visible_before_all_is_there(store: Backend) -> None:
    seen: list[list[str]] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            yield b"x" * (9 * MIB)
            seen.append(keys(store.list("")))

    store.put("o", chunks())
    assert seen == [[], [], []] and keys(store.list("")) == ["o"]


STREAMED = """
import itertools, sys
from kpbackup.storage import open_backend

def peak_mib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

def stream(size_mib, hint):
    store.put("big", itertools.repeat(b"x" * (1 << 20), size_mib), size_hint=hint)
    assert sum(len(piece) for piece in store.get("big")) == size_mib << 20
    return peak_mib()

store = open_backend(sys.argv[1], endpoint_url=sys.argv[2] or None)
small = stream(40, 0)
print(small, stream(200, 0), stream(200, 200 << 20))
"""


@pytest.mark.slow
def test_memory_stays_flat(url_and_endpoint: tuple[str, str | None]) -> None:
    url, endpoint_url = url_and_endpoint
    argv = [sys.executable, "-c", STREAMED, url, endpoint_url or ""]
    small, large, hinted = map(float, subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    assert large - small < 10 and hinted - small < 10, f"peak MiB: 40 MiB {small}, 200 MiB {large}, with a hint {hinted}"
    assert small < 120, "two parts of 8 MiB, Python and boto3"


def test_threads_share_one_backend(store: Backend) -> None:
    def round_trip(number: int) -> bool:
        content = os.urandom(100_000 + number)
        store.put(f"o/{number}", [content])
        return store.read(f"o/{number}") == content

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(round_trip, range(64)))
    assert len(keys(store.list("o/"))) == 64
