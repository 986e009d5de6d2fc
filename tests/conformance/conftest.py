"""Both kinds of store, and an empty repository in each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kpbackup.pipeline.sign import SigningKey
from kpbackup.repository import binding
from kpbackup.storage import Backend, open_backend
from tests.servers.s3 import S3Server

CREATED = datetime(2026, 4, 30, 23, 59, 0, tzinfo=UTC)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A directory; a prefix of a bucket."""
    if request.param == "local":
        backend = open_backend(tmp_path.as_uri() + "/repository")
    else:
        request.getfixturevalue("aws_environment")
        server: S3Server = request.getfixturevalue("s3")
        backend = open_backend(f"s3://{request.getfixturevalue('s3_bucket')}/some/prefix", endpoint_url=server.endpoint_url)
    yield backend
    for info in list(backend.list("")):
        backend.delete(info.key)
    backend.close()


@pytest.fixture
def signing_key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def repository(store: Backend, signing_key: SigningKey) -> binding.Repository:
    return binding.create_repository(store, signing_key=signing_key, source="db:3306", flavour="mariadb", created_at=CREATED)
