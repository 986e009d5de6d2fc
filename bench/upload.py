"""`python -m bench.upload URL ENDPOINT KEY [FILE...]`: standard input, or files under KEY/NAME, stored with kpbackup's S3 client.

So that what a peer makes goes to the store the same way as what kpbackup makes. Credentials come from the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kpbackup import storage

PIECE_BYTES = 1 << 20


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(PIECE_BYTES):
        yield piece


def main() -> None:
    url, endpoint, key, *files = sys.argv[1:]
    backend = storage.open_backend(url, endpoint_url=endpoint, region=None)
    if not files:
        backend.put(key, _pieces(sys.stdin.buffer))
    for file in map(Path, files):
        with file.open("rb") as source:
            backend.put(f"{key}/{file.name}", _pieces(source), size_hint=file.stat().st_size)


if __name__ == "__main__":
    main()
