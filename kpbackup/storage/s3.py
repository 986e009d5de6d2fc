"""A repository's objects in an S3 bucket: Amazon's, or any server that speaks its language.

Idea: the plain calls of boto3 with its own retries switched off, so that there is one retry layer and
conditional writes are never repeated blindly. Credentials come by the normal AWS chain (environment,
profile, role). Endpoints other than Amazon's are addressed by path (http://host/bucket/key).

Limits: one object is at most 5 TiB, `put_if_absent` and `replace` take what one PutObject takes (5 GiB).

After a crash: single objects are whole or absent; see `s3_upload` for the parts of an unfinished one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3.session
import botocore.config
import botocore.exceptions

from kpbackup import errors
from kpbackup.storage import backend, locks, parts, s3_download, s3_errors, s3_upload
from kpbackup.storage.backend import Capabilities, ObjectInfo, validate_key, validate_prefix
from kpbackup.storage.locks import Lock
from kpbackup.storage.retry import RetryPolicy

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
MOST_CONNECTIONS = 32  # threads beyond that wait for a connection's set-up, not for each other
MOST_DELETED = 1000  # what one request may name
RETRY = RetryPolicy()
# Python's HTTP client takes an answer that breaks off within its head for a whole one: an empty listing, an object
# without length. So what every complete answer has is looked for.
_ALWAYS_ANSWERED = {
    "put_object": ("ETag",),
    "create_multipart_upload": ("UploadId",),
    "upload_part": ("ETag",),
    "complete_multipart_upload": ("ETag",),
    "head_object": ("ETag", "ContentLength"),
    "get_object": ("ETag", "ContentLength"),
    "list_objects_v2": ("IsTruncated",),
}

_WITHOUT_LOCK = ("ObjectLockConfigurationNotFoundError", "NotImplemented", "InvalidRequest", "NoSuchObjectLockConfiguration")

Json = dict[str, Any]


class Bucket:
    """The calls of one bucket: one client, created at the first call and shared by all threads."""

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        ca_file: str | None,
        retry: RetryPolicy,
        timeout_s: float,
    ) -> None:
        self.bucket = bucket
        self.retry = retry
        self.store = endpoint_url or "Amazon S3"
        self._endpoint_url, self._region, self._timeout_s = endpoint_url, region, timeout_s
        self._profile, self._ca_file = profile, ca_file
        self._creating = threading.Lock()
        self._client: Any = None

    def client(self) -> Any:
        """The boto3 client. Raises botocore's own exceptions."""
        with self._creating:
            if self._client is None:
                self._client = self._create()
            return self._client

    def _create(self) -> Any:
        session = boto3.session.Session(profile_name=self._profile)
        settings = botocore.config.Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=self._timeout_s,
            retries={"total_max_attempts": 1},
            max_pool_connections=MOST_CONNECTIONS,
            s3={"addressing_style": "path" if self._endpoint_url else "auto"},
            # We compute and compare checksums ourselves; the SDK's own way breaks on several servers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = self._region or session.region_name or "us-east-1"
        return session.client(
            "s3", endpoint_url=self._endpoint_url, region_name=region, config=settings, verify=self._ca_file
        )

    def once(self, method: str, key: str, **parameters: object) -> Json:
        """One request, not retried; raises botocore's own exceptions. `key` "" for calls about the bucket."""
        named = {"Key": key} if key else {}
        answer: Json = getattr(self.client(), method)(Bucket=self.bucket, **named, **parameters)
        if not all(field in answer for field in _ALWAYS_ANSWERED.get(method, ())):
            raise botocore.exceptions.ConnectionClosedError(endpoint_url=self.store)
        return answer

    def call(self, doing: str, method: str, key: str, *, stop: threading.Event | None = None, **parameters: object) -> Json:
        """One idempotent request, retried; raises `errors.StorageError`."""
        for last in self.retry.pace(stop):
            try:
                return self.once(method, key, **parameters)
            except s3_errors.FAILURES as exc:
                if last or not s3_errors.is_transient(exc):
                    raise self.error(exc, doing, key or str(parameters.get("Prefix", ""))) from exc
        raise errors.StorageError(f"cannot {doing} {self.url(key)}: stopped")

    def error(self, exc: Exception, doing: str, key: str) -> errors.StorageError:
        """botocore's exception as ours."""
        return s3_errors.translate(exc, f"{doing} {self.url(key)}", self.store)

    def url(self, key: str) -> str:
        """`s3://bucket/key`, for messages."""
        return f"s3://{self.bucket}/{key}"

    def close(self) -> None:
        with self._creating:
            if self._client is not None:
                self._client.close()


class S3Backend:
    """`backend.Backend` on a bucket, below `prefix` ("" or "some/where").

    Etags are the store's own. `put` compares size, and CRC32 where HEAD gives one of the whole object.
    """

    capabilities = Capabilities(conditional_put=True, conditional_replace=True, checksums=True)

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        ca_file: str | None = None,
        lock: Lock | None = None,
        retry: RetryPolicy = RETRY,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")
        self.lock = lock
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = Bucket(
            bucket,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            ca_file=ca_file,
            retry=retry,
            timeout_s=read_timeout_s,
        )

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        full_key = self._full(key)
        stream = parts.cut(chunks, size_hint)
        first = next(stream)
        if not first.last:
            again = _chained(first, stream)
            del first  # or the first part would stay in memory to the end
            return self._confirm(key, s3_upload.MultipartUpload(self._bucket, full_key, **self._locking(key)).run(again))
        self._bucket.call(
            "store", "put_object", full_key, Body=first.data, **s3_upload.integrity(first.data), **self._locking(key)
        )
        return self._confirm(key, s3_upload.Sent(len(first.data), zlib.crc32(first.data)))

    def _locking(self, key: str) -> Json:
        return self.lock.parameters(key, datetime.now(UTC)) if self.lock is not None else {}

    def _confirm(self, key: str, sent: s3_upload.Sent) -> ObjectInfo:
        """What the store says it holds now, compared with what was sent."""
        answer = self._head(self._full(key), "confirm")
        size, found = int(answer["ContentLength"]), str(answer.get("ChecksumCRC32", ""))
        of_whole = found and "-" not in found and answer.get("ChecksumType") != "COMPOSITE"
        if size != sent.size_bytes or (of_whole and found != s3_upload.crc32_text(sent.crc32)):
            raise errors.StorageError(
                f"cannot store {self._url(key)}: {sent.size_bytes} bytes were sent, the store holds {size} bytes"
                + (" with another checksum" if size == sent.size_bytes else ""),
                hint="another program wrote the same object at the same moment, or the store is broken",
            )
        return ObjectInfo(key, size, answer["ETag"])

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        try:
            return self._conditional(key, data, IfNoneMatch="*")
        except errors.PreconditionFailed as exc:
            raise errors.ObjectExists(f"cannot create {self._url(key)}: it exists already") from exc

    def replace(self, key: str, data: bytes, *, etag: str) -> ObjectInfo:
        try:
            return self._conditional(key, data, IfMatch=etag)
        except errors.ObjectMissing as exc:
            raise errors.PreconditionFailed(f"cannot replace {self._url(key)}: it does not exist any more") from exc

    def _conditional(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        """A conditional PutObject; when an answer was lost, what is stored says whether it was carried out."""
        doubtful = False
        parameters = {**condition, **self._locking(key)}
        for last in self._bucket.retry.pace():
            try:
                answer = self._bucket.once("put_object", self._full(key), Body=data, **s3_upload.integrity(data), **parameters)
                return ObjectInfo(key, len(data), answer["ETag"])
            except s3_errors.FAILURES as exc:
                doubtful = doubtful or s3_errors.is_ambiguous(exc)
                again = s3_errors.is_transient(exc) or s3_errors.code_of(exc) == "ConditionalRequestConflict"
                if again and not last:
                    continue
                if doubtful and (own := self._stored_already(key, data)):
                    return own
                raise self._bucket.error(exc, "store", self._full(key)) from exc
        raise errors.InternalError("a retry policy without attempts")

    def _stored_already(self, key: str, data: bytes) -> ObjectInfo | None:
        """The stored object, if it holds exactly `data`."""
        try:
            stored = self.read(key, limit_bytes=len(data))
            return self.head(key) if stored == data else None
        except errors.StorageError:
            return None  # absent, larger or out of reach: the caller reports its own failure

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        full_key = self._full(key)
        if length == 0:  # no range says that; but a missing object is still one
            self.head(key)
            return
        yield from s3_download.Download(
            functools.partial(self._bucket.once, "get_object", full_key),
            self._bucket.retry,
            doing=f"read {self._url(key)}",
            store=self._bucket.store,
            offset=offset,
            end=None if length is None else offset + length,
        )

    def read(self, key: str, *, limit_bytes: int = backend.READ_LIMIT_BYTES) -> bytes:
        return backend.join(self.get(key), limit_bytes=limit_bytes, what=self._url(key))

    def head(self, key: str) -> ObjectInfo:
        answer = self._head(self._full(key), "read")
        return ObjectInfo(key, int(answer["ContentLength"]), answer["ETag"])

    def _head(self, full_key: str, doing: str) -> Json:
        try:
            return self._bucket.call(doing, "head_object", full_key, ChecksumMode="ENABLED")
        except errors.StorageError as exc:
            if not s3_errors.code_of(exc.__cause__).isdigit():
                raise
            # The answer to HEAD has no body, so "404" may be the bucket and "403" a wrong secret: GET tells.
            self._bucket.call(doing, "get_object", full_key, Range="bytes=0-0")["Body"].close()
            return self._bucket.call(doing, "head_object", full_key, ChecksumMode="ENABLED")  # it appeared just now

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for page in self._pages(prefix, **({"StartAfter": self._prefix + after} if after else {})):
            for row in page.get("Contents", ()):
                yield ObjectInfo(row["Key"][len(self._prefix) :], int(row["Size"]), row["ETag"])

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        rows = [row for page in self._pages(prefix, Delimiter="/") for row in page.get("CommonPrefixes", ())]
        yield from sorted(row["Prefix"][len(self._prefix) :] for row in rows)  # few; not every store sorts 'a-b/' before 'a/'

    def _pages(self, prefix: str, **parameters: Any) -> Iterator[Json]:
        full_prefix = self._prefix + validate_prefix(prefix)
        page: Json = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            token = page["NextContinuationToken"]
            position: Json = {"ContinuationToken": token} if token else {}
            page = self._bucket.call("list", "list_objects_v2", "", Prefix=full_prefix, **parameters | position)
            yield page

    def delete(self, key: str) -> None:
        with contextlib.suppress(errors.ObjectMissing):  # S3 itself says nothing then; some servers do
            self._bucket.call("delete", "delete_object", self._full(key))

    def delete_all(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(itertools.islice(rest, MOST_DELETED)):
            named = [{"Key": self._full(key)} for key in batch]
            answer = self._bucket.call("delete", "delete_objects", "", Delete={"Objects": named, "Quiet": True})
            for refused in answer.get("Errors", ()):
                code, url = refused.get("Code"), self._bucket.url(refused.get("Key", ""))
                if code != "NoSuchKey":
                    raise errors.StorageError(
                        f"cannot delete {url}: {code} {refused.get('Message', '')}",
                        hint="may this account delete there, and is the object locked?",
                    )

    def verifies_checksums(self, key: str) -> bool:
        wrong = s3_upload.integrity(b"some other bytes")
        try:
            self._bucket.once("put_object", self._full(key), Body=b"probe", **wrong)
        except s3_errors.FAILURES as exc:
            if s3_errors.status_of(exc) == 400:
                return True
            raise self._bucket.error(exc, "store", self._full(key)) from exc
        return False

    def locked_until(self, key: str) -> datetime | None:
        until: datetime | None = self._head(self._full(key), "read the lock of").get("ObjectLockRetainUntilDate")
        return until

    def can_lock(self) -> bool:
        try:
            answer = self._bucket.call("read the lock of", "get_object_lock_configuration", "")
        except errors.StorageError as exc:
            if s3_errors.code_of(exc.__cause__) in _WITHOUT_LOCK:
                return False
            raise
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def keeps_versions(self) -> bool:
        return bool(self._bucket.call("read the versioning of", "get_bucket_versioning", "").get("Status") == "Enabled")

    def put_locked(self, key: str, data: bytes, *, mode: locks.Mode, until: datetime) -> str:
        lock = locks.fixed(mode, until)
        answer = self._bucket.call("store", "put_object", self._full(key), Body=data, **s3_upload.integrity(data), **lock)
        return str(answer.get("VersionId", ""))

    def lock_longer(self, key: str, *, mode: locks.Mode, until: datetime) -> None:
        retention = {"Mode": mode.upper(), "RetainUntilDate": until.astimezone(UTC)}
        self._bucket.call("renew the lock of", "put_object_retention", self._full(key), Retention=retention)

    def delete_version(self, key: str, version: str, *, bypass: bool) -> None:
        extra: Json = {"BypassGovernanceRetention": True} if bypass else {}
        self._bucket.call("delete a version of", "delete_object", self._full(key), VersionId=version, **extra)

    def close(self) -> None:
        self._bucket.close()

    def _full(self, key: str) -> str:
        return self._prefix + validate_key(key)

    def _url(self, key: str) -> str:
        return self._bucket.url(self._prefix + key)


def _chained(first: parts.Part, rest: Iterator[parts.Part]) -> Iterator[parts.Part]:
    yield first
    del first
    yield from rest
