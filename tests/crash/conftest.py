"""A small source for jobs that are to die."""

from __future__ import annotations

import pytest

from tests.servers.database import Server


@pytest.fixture
def source(mariadb: Server) -> Server:
    """MariaDB with one table of one row."""
    mariadb.execute(
        "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, note VARCHAR(300))",
        "INSERT INTO shop.orders VALUES (1, 'before')",
    )
    return mariadb
