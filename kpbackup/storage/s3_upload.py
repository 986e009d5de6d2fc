"""One multipart upload: parts out of a stream, each verified by the store, then one object or nothing.

Idea: a part is sent while the next one is filled, so two are in memory and never more. The store
checks each part's CRC32, and the whole object's where it can keep one.

After a crash (kill -9, power): the parts sent so far stay in the store, invisible to list and get.
A lifecycle rule of the bucket (abort incomplete multipart uploads after a day) removes them.
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from kpbackup import errors
from kpbackup.storage import parts, s3_errors

Json = dict[str, Any]


class Store(Protocol):
    """The calls of one bucket, retried and translated (`s3.Bucket`)."""

    def call(self, doing: str, method: str, key: str, *, stop: threading.Event | None = None, **parameters: object) -> Json: ...


@dataclass(frozen=True)
class Sent:
    """What the store must now hold."""

    size_bytes: int
    crc32: int


def crc32_text(value: int) -> str:
    """A CRC32 the way S3 writes it: base64 of four big-endian bytes."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def integrity(data: bytes | bytearray) -> Json:
    """The CRC32 with which the store refuses a body that is not `data`; stores that know none ignore it."""
    return {"ChecksumCRC32": crc32_text(zlib.crc32(data))}


class MultipartUpload:
    """One upload, used once."""

    def __init__(self, store: Store, key: str, **lock: Any) -> None:
        """`lock` are the parameters of Object Lock."""
        self._store, self._lock = store, lock
        self._key = key
        self._stop = threading.Event()
        self._upload_id = ""
        self._sent: list[Json] = []

    def run(self, stream: Iterable[parts.Part]) -> Sent:
        """Uploads and completes; aborts on any exception, `KeyboardInterrupt` and those of `stream` included."""
        answer = self._store.call(
            "start storing",
            "create_multipart_upload",
            self._key,
            ChecksumAlgorithm="CRC32",
            ChecksumType="FULL_OBJECT",
            **self._lock,
        )
        self._upload_id = answer["UploadId"]
        try:
            sent = self._send_all(stream)
            # A store that does not say so would compare our sum with one over the parts' sums.
            self._complete(sent, whole_sum=answer.get("ChecksumType") == "FULL_OBJECT")
        except BaseException as exc:
            self._abort(exc)
            raise
        return sent

    def _send_all(self, stream: Iterable[parts.Part]) -> Sent:
        size, crc32 = 0, 0
        flying: Future[None] | None = None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kpbackup-upload") as pool:
            try:
                for part in stream:
                    size, crc32 = size + len(part.data), zlib.crc32(part.data, crc32)
                    if flying:
                        flying.result()
                    flying = pool.submit(self._send, part)
                if flying:
                    flying.result()
            except BaseException:
                self._stop.set()  # leaving the pool waits for the part in flight: no more attempts for it
                raise
        return Sent(size, crc32)

    def _send(self, part: parts.Part) -> None:
        check = integrity(part.data)
        answer = self._store.call(
            f"store part {part.number} of",
            "upload_part",
            self._key,
            stop=self._stop,
            UploadId=self._upload_id,
            PartNumber=part.number,
            Body=part.data,
            **check,
        )
        row = {"PartNumber": part.number, "ETag": answer["ETag"]}
        if "ChecksumCRC32" in answer:
            row["ChecksumCRC32"] = check["ChecksumCRC32"]
        self._sent.append(row)

    def _complete(self, sent: Sent, *, whole_sum: bool) -> None:
        check: Json = {"ChecksumCRC32": crc32_text(sent.crc32), "ChecksumType": "FULL_OBJECT"} if whole_sum else {}
        try:
            self._store.call(
                "finish storing",
                "complete_multipart_upload",
                self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._sent},
                **check,
            )
        except errors.StorageError as exc:
            # The answer to an earlier attempt was lost and the upload is no more: the caller's HEAD decides.
            if s3_errors.code_of(exc.__cause__) != "NoSuchUpload":
                raise

    def _abort(self, reason: BaseException) -> None:
        try:
            self._store.call("discard", "abort_multipart_upload", self._key, UploadId=self._upload_id)
        except errors.StorageError as exc:
            if s3_errors.code_of(exc.__cause__) != "NoSuchUpload":
                reason.add_note(f"its invisible parts stay until a lifecycle rule removes them: {exc}")
