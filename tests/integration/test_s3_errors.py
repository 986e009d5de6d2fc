"""What goes wrong with a real S3 server, on the way to it and with the keys: one clear error, and no wrong object."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from kpbackup import errors
from kpbackup.storage import open_backend
from kpbackup.storage.probe import probe
from kpbackup.storage.retry import RetryPolicy
from kpbackup.storage.s3 import S3Backend
from tests.servers import ports
from tests.servers.faulty_proxy import Fault, FaultyProxy, faulty_proxy, refusal
from tests.servers.s3 import Credentials, S3Server

MIB = 1 << 20
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01, longest_delay_s=0.05)
pytestmark = pytest.mark.usefixtures("aws_environment")


@pytest.fixture
def s3_bucket(s3: S3Server, s3_bucket: str) -> Iterator[str]:
    """A new bucket, deleted afterwards: each one takes some of the few volumes a small SeaweedFS has."""
    client = s3.client()  # now: a test may spoil the environment it is made from
    yield s3_bucket
    client.delete_bucket(Bucket=s3_bucket)
    client.close()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.port) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, s3_bucket: str) -> Iterator[S3Backend]:
    """The real server through the proxy, which may take its time on a busy machine."""
    backend = S3Backend(s3_bucket, endpoint_url=proxy.url, retry=QUICK, read_timeout_s=60.0)
    yield backend
    backend.close()


@pytest.fixture
def impatient(proxy: FaultyProxy, s3_bucket: str) -> Iterator[S3Backend]:
    """The same; a silence of two seconds is too long."""
    backend = S3Backend(s3_bucket, endpoint_url=proxy.url, retry=QUICK, read_timeout_s=2.0)
    yield backend
    backend.close()


@pytest.fixture
def use_key(monkeypatch: pytest.MonkeyPatch) -> Callable[[Credentials], None]:
    def use(key: Credentials) -> None:
        for name, value in key.environ().items():
            monkeypatch.setenv(name, value)

    return use


def caught(call: Callable[[], object], cls: type[errors.KpbackupError] = errors.StorageError) -> errors.KpbackupError:
    """The error of a call; exactly of `cls`, and without any secret."""
    with pytest.raises(cls) as found:
        call()
    error = found.value
    assert type(error) is cls, repr(error)
    shown = error.message + error.hint + "".join(getattr(error, "__notes__", []))
    assert "secret-" not in shown and os.environ["AWS_SECRET_ACCESS_KEY"] not in shown
    return error


def all_calls(store: S3Backend) -> list[Callable[[], object]]:
    return [
        lambda: store.put("o", [b"x"]),
        lambda: store.put("o", [b"x" * (9 * MIB)]),
        lambda: store.put_if_absent("o", b"x"),
        lambda: store.replace("o", b"x", etag='"0"'),
        lambda: store.read("o"),
        lambda: store.head("o"),
        lambda: list(store.list("")),
        lambda: list(store.list_prefixes("")),
        lambda: store.delete("o"),
    ]


# -- keys, buckets, endpoints


def test_a_wrong_secret(s3: S3Server, s3_bucket: str, use_key: Callable[[Credentials], None]) -> None:
    use_key(Credentials(s3.access_key, "wrong-secret-1"))
    store = S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK)
    for call in all_calls(store):
        error = caught(call)
        assert "SignatureDoesNotMatch" in error.message and s3.endpoint_url in error.message and s3_bucket in error.message
        assert "AWS_SECRET_ACCESS_KEY" in error.hint


def test_an_unknown_access_key(s3: S3Server, s3_bucket: str, use_key: Callable[[Credentials], None]) -> None:
    use_key(Credentials("NOBODY", "wrong-secret-1"))
    for call in all_calls(S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK)):
        error = caught(call)
        assert "InvalidAccessKeyId" in error.message and "AWS_ACCESS_KEY_ID" in error.hint


def test_a_wrong_bucket(s3: S3Server, use_key: Callable[[Credentials], None]) -> None:
    use_key(s3.reader)
    store = S3Backend("kpb-no-such-bucket", "some/prefix", endpoint_url=s3.endpoint_url, retry=QUICK)
    for call in (
        lambda: store.read("o"),
        lambda: store.head("o"),
        lambda: list(store.list("")),
        lambda: list(store.list_prefixes("")),
    ):
        error = caught(call)
        assert "kpb-no-such-bucket/some/prefix" in error.message and "the bucket does not exist" in error.message
        assert "create it" in error.hint


def test_a_key_that_may_only_read(s3: S3Server, s3_bucket: str, use_key: Callable[[Credentials], None]) -> None:
    writer = S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK)
    writer.put("o", [b"content"])
    use_key(s3.reader)
    store = S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK)
    assert store.read("o") == b"content"
    for call in [*all_calls(store)[:3], lambda: store.replace("o", b"x", etag=store.head("o").etag), lambda: store.delete("o")]:
        error = caught(call)
        assert "access denied" in error.message and f"s3://{s3_bucket}/o" in error.message and "read-only" in error.hint
    caught(lambda: probe(store))
    assert writer.read("o") == b"content" and len(list(writer.list(""))) == 1


def test_a_writer_without_delete_can_do_its_work(s3: S3Server, s3_bucket: str, use_key: Callable[[Credentials], None]) -> None:
    use_key(s3.writer)
    store = S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK)
    store.put("o", [b"x" * (9 * MIB)])
    store.replace("lease", b"2", etag=store.put_if_absent("lease", b"1").etag)
    assert probe(store) == store.capabilities
    assert "access denied" in caught(lambda: store.delete("o")).message
    assert store.head("o").size_bytes == 9 * MIB


def test_an_unreachable_endpoint() -> None:
    url = f"http://127.0.0.1:{ports.free_port()}"
    store = S3Backend("bucket", endpoint_url=url, retry=QUICK)
    for call in all_calls(store):
        error = caught(call)
        assert "the endpoint cannot be reached" in error.message and url in error.message and "firewall" in error.hint


def test_the_default_retries_end_soon_enough() -> None:
    store = open_backend("s3://bucket", endpoint_url=f"http://127.0.0.1:{ports.free_port()}")
    begun = time.monotonic()
    caught(lambda: store.head("o"))
    assert 2 < time.monotonic() - begun < 60


def test_no_credentials(s3: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.StorageError, match="no usable credentials") as found:
        S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK).head("o")
    assert "AWS_ACCESS_KEY_ID" in found.value.hint


def test_an_unknown_profile(s3: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    error = caught(lambda: S3Backend(s3_bucket, endpoint_url=s3.endpoint_url, retry=QUICK).head("o"))
    assert "nobody" in error.message and "AWS_PROFILE" in error.hint


@pytest.mark.parametrize(
    ("status", "code", "said", "hint"),
    [
        (403, "RequestTimeTooSkewed", "clock", "chrony"),
        (403, "AccessDenied", "access denied", "grant"),
        (301, "PermanentRedirect", "another region", "region"),
        (507, "InsufficientStorage", "the store is full", "free space"),
        (400, "SomethingNew", "SomethingNew", "documentation"),
    ],
)
def test_refusals_are_explained_and_not_retried(
    store: S3Backend, proxy: FaultyProxy, status: int, code: str, said: str, hint: str
) -> None:
    for call in (lambda: store.read("o"), lambda: store.put("o", [b"x"]), lambda: store.put_if_absent("o", b"x")):
        proxy.plan([Fault(b"", answer=refusal(status, code))])
        error = caught(call)
        assert said in error.message and hint in error.hint
        writes = [line for line in proxy.requests if line.startswith(b"PUT")]
        assert len(writes) <= 1


def test_a_store_without_conditional_writes_is_told_apart(store: S3Backend, proxy: FaultyProxy) -> None:
    proxy.plan([Fault(b"PUT", answer=refusal(501, "NotImplemented"))])
    assert "doctor" in caught(lambda: store.put_if_absent("o", b"x"), errors.NotSupported).hint


# -- transient failures


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(429, "TooManyRequests"),
        refusal(400, "RequestTimeout"),
        b"garbage",
    ],
)
def test_what_passes_is_tried_again(store: S3Backend, proxy: FaultyProxy, answer: bytes) -> None:
    calls: list[tuple[Callable[[], object], bytes]] = [
        (lambda: store.put("o", [b"content"]), b"PUT"),
        (lambda: store.put("big", [b"x" * (9 * MIB)]), b"PUT"),
        (lambda: store.put("big", [b"x" * (9 * MIB)]), b"POST"),
        (lambda: store.put_if_absent("new", b"mine"), b"PUT"),
        (lambda: store.read("o"), b"GET"),
        (lambda: list(store.list("")), b"GET"),
        (lambda: store.delete("o"), b"DELETE"),
    ]
    for call, method in calls:
        proxy.plan([Fault(method, answer=answer)] * 3)
        call()
        assert proxy.pending() == []
    assert store.read("big") == b"x" * (9 * MIB) and store.read("new") == b"mine"


def test_a_store_that_stays_overloaded_is_given_up(store: S3Backend, proxy: FaultyProxy) -> None:
    proxy.plan([Fault(b"PUT", answer=refusal(503, "SlowDown"))] * 9)
    error = caught(lambda: store.put("o", [b"x"]))
    assert "overloaded" in error.message and len(proxy.pending()) == 9 - QUICK.attempts


def test_an_upload_that_fails_for_good_is_discarded(store: S3Backend, proxy: FaultyProxy, s3: S3Server, s3_bucket: str) -> None:
    for fault in (
        Fault(b"PUT", answer=refusal(503, "SlowDown")),
        Fault(b"PUT"),
        Fault(b"PUT", answer=refusal(403, "AccessDenied")),
    ):
        proxy.plan([fault] * 4)
        caught(lambda: store.put("o", [b"x" * (30 * MIB)]))
        assert list(store.list("")) == []
        assert not s3.client().list_multipart_uploads(Bucket=s3_bucket).get("Uploads")


def test_a_lost_answer_to_the_completion_is_settled(store: S3Backend, proxy: FaultyProxy) -> None:
    content = os.urandom(20 * MIB)
    proxy.plan([Fault(b"POST /", answer=refusal(503, "SlowDown")), Fault(b"POST /"), Fault(b"POST /")])
    info = store.put("o", [content])
    assert proxy.pending() == [] and info == store.head("o") and store.read("o") == content


@pytest.mark.parametrize("after_bytes", [1, 17, 30, 60, 100, 150])
def test_an_answer_cut_within_its_head_is_no_answer(store: S3Backend, proxy: FaultyProxy, after_bytes: int) -> None:
    store.put("o", [b"content"])
    calls: list[tuple[Callable[[], object], bytes, object]] = [
        (lambda: [info.key for info in store.list("")], b"GET", ["o"]),
        (lambda: store.read("o"), b"GET", b"content"),
        (lambda: store.head("o").size_bytes, b"HEAD", 7),
        (lambda: store.put("o", [b"content"]).size_bytes, b"PUT", 7),
    ]
    for call, method, wanted in calls:
        proxy.plan([Fault(method, after_bytes=after_bytes)])
        assert call() == wanted and proxy.pending() == []


# -- conditional writes whose answer is lost


def test_a_lost_answer_to_a_creation_is_our_own_success(store: S3Backend, proxy: FaultyProxy, s3_bucket: str) -> None:
    proxy.plan([Fault(b"PUT")])
    info = store.put_if_absent("lease", b"mine")
    assert [line.split()[0] for line in proxy.requests] == [b"PUT", b"PUT", b"GET", b"HEAD"]
    assert info == store.head("lease") and store.read("lease") == b"mine"


def test_every_answer_lost_is_still_our_own_success(store: S3Backend, proxy: FaultyProxy) -> None:
    proxy.plan([Fault(b"PUT")] * QUICK.attempts)
    assert store.put_if_absent("lease", b"mine") == store.head("lease")
    assert proxy.pending() == []


def test_a_lost_answer_is_no_success_when_another_was_first(store: S3Backend, proxy: FaultyProxy) -> None:
    store.put("lease", [b"theirs"])
    proxy.plan([Fault(b"PUT")])
    caught(lambda: store.put_if_absent("lease", b"mine"), errors.ObjectExists)
    proxy.plan([Fault(b"PUT")] * QUICK.attempts)
    caught(lambda: store.put_if_absent("lease", b"mine"))
    assert store.read("lease") == b"theirs"


def test_a_lost_answer_to_a_replacement(store: S3Backend, proxy: FaultyProxy) -> None:
    first = store.put_if_absent("lease", b"1")
    proxy.plan([Fault(b"PUT")])
    second = store.replace("lease", b"2", etag=first.etag)
    assert second == store.head("lease") and store.read("lease") == b"2"
    proxy.plan([Fault(b"PUT")])
    caught(lambda: store.replace("lease", b"3", etag=first.etag), errors.PreconditionFailed)
    assert store.read("lease") == b"2"


def test_a_conflict_of_two_conditional_writes_is_tried_again(store: S3Backend, proxy: FaultyProxy) -> None:
    proxy.plan([Fault(b"PUT", answer=refusal(409, "ConditionalRequestConflict"))] * 3)
    store.put_if_absent("lease", b"mine")
    assert proxy.pending() == []


# -- broken bodies


@pytest.mark.parametrize("stalls", [False, True])
def test_a_broken_body_is_resumed(store: S3Backend, impatient: S3Backend, proxy: FaultyProxy, stalls: bool) -> None:
    content = os.urandom(10 * MIB)
    store.put("o", [content])
    cuts = [0, 100, 3 * MIB] if stalls else [0, 100, 3 * MIB, 2 * MIB, 2 * MIB]  # progress makes the count start again
    proxy.plan([Fault(b"GET", after_bytes=cut, stalls=stalls) for cut in cuts])
    assert (impatient if stalls else store).read("o") == content
    assert proxy.pending() == []
    proxy.plan([Fault(b"GET", after_bytes=MIB)])
    assert b"".join(store.get("o", offset=5, length=4 * MIB)) == content[5 : 5 + 4 * MIB]


@pytest.mark.parametrize(("stalls", "cause"), [(False, "connection broke off"), (True, "stopped answering")])
def test_a_body_that_stays_broken_is_an_error(
    store: S3Backend, impatient: S3Backend, proxy: FaultyProxy, stalls: bool, cause: str
) -> None:
    store.put("o", [os.urandom(10 * MIB)])
    proxy.plan([Fault(b"GET", after_bytes=200_000, stalls=stalls)] * 20)
    begun = time.monotonic()
    error = caught(lambda: (impatient if stalls else store).read("o"))
    assert cause in error.message and "/o" in error.message
    assert time.monotonic() - begun < 60
    assert 20 - QUICK.attempts >= len(proxy.pending()) > 10


def test_an_object_replaced_while_it_is_read_is_not_mixed(store: S3Backend, proxy: FaultyProxy) -> None:
    store.put("o", [b"a" * (10 * MIB)])
    proxy.plan([Fault(b"GET", after_bytes=3 * MIB)])
    pieces = store.get("o")
    assert set(next(pieces)) == {ord("a")}
    store.put("o", [b"b" * (10 * MIB)])
    assert "while it was read" in caught(lambda: list(pieces)).message
