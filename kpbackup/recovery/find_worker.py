"""The worker of a search: `python -m kpbackup.recovery.find_worker`. One sealed segment after the other, looked through.

    {"criteria": {...}}  first -> {"ready": true}
    {"segment": {"file", "start", "prefix_bytes", "identity"}}, bytes of the sealed payload, {"end": true}
        -> {"hits": [Hit...]}, at most `limit` of them

It knows neither storage nor repository; whether the bytes are those that were stored is for the parent to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.mysql import binlog_file
from kpbackup.pipeline import age_texts, process, stream
from kpbackup.recovery.search import Criteria, search


class FindWorker:
    """Answers the messages of one search."""

    def __init__(self, channel: process.WorkerChannel, start: dict[str, Any]) -> None:
        self._channel = channel
        self._criteria = codec.decode(Criteria, start["criteria"], what="the criteria of a search")
        self._limit = int(start["limit"])

    def handle(self, message: dict[str, Any]) -> None:
        job = message["segment"]
        plain = stream.unseal(self._sealed_bytes(), [age_texts.parse_identity(job["identity"])])
        events = binlog_file.read_file(
            plain, file=job["file"], start_position=job["start"], prefix_bytes=job["prefix_bytes"]
        )
        hits = [codec.encode(hit) for hit in islice(search(events, self._criteria), self._limit)]
        for _ in plain:
            pass  # to the end, which alone proves that it is whole; and the parent wants to send it
        self._channel.send({"hits": hits})

    def _sealed_bytes(self) -> Iterator[bytes]:
        while True:
            message = self._channel.receive()
            if isinstance(message, bytes):
                yield message
            elif message.get("end"):
                return
            else:
                raise errors.InternalError(f"unexpected message within a segment: {sorted(message)}")


def main() -> None:
    """Serves one parent until it closes the pipe."""
    channel = process.WorkerChannel()
    channel.serve_after_start(lambda start: FindWorker(channel, start).handle)


if __name__ == "__main__":
    main()
