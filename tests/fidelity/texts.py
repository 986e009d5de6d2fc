"""The text of `mariadb-dump` or `mysqldump` of two servers, compared after normalisation.

A second opinion beside the judge, blinder than it: these programs round FLOAT and lose types inside JSON.

Normalisation: no comments, rows in the order of their key. Left out: the values of `texts.huge` (400 MB in hex; the judge hashes
them), what is broken on the source, and `values.choices_beyond`, which no server shows as it is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.fidelity.scenes import Kind
from tests.servers import mariadb, mariadb118, mysql97
from tests.servers.database import Server

_OPTIONS = (
    "--force", "--hex-blob", "--routines", "--events", "--triggers", "--order-by-primary", "--skip-dump-date",
    "--skip-extended-insert", "--skip-comments", "--skip-lock-tables", "--max-allowed-packet=1G", "--ignore-table=texts.huge",
    "--ignore-table=shop.broken", "--ignore-table=values.choices_beyond", "--default-character-set=utf8mb4",
)
_TIMEOUT_S = 300


def compare(kind: Kind, one: Server, other: Server, *, databases: Sequence[str], directory: Path) -> str:
    """The first lines that differ, "" when there are none."""
    paths = [directory / "one.sql", directory / "other.sql"]
    for at, path in zip((one, other), paths, strict=True):
        _dump(kind, at, databases, path)
    assert paths[0].stat().st_size > 1 << 20, "the dump program wrote next to nothing"
    done = subprocess.run(["diff", "--text", *map(str, paths)], capture_output=True, timeout=_TIMEOUT_S)
    return done.stdout[:4000].decode("utf-8", "backslashreplace")


def _dump(kind: Kind, at: Server, databases: Sequence[str], path: Path) -> None:
    program = {"mariadb": mariadb.find, "mariadb118": mariadb118.program}.get(kind.name, mysql97.program)
    name = "mariadb-dump" if kind.mariadb else "mysqldump"
    more = [] if kind.mariadb else ["--set-gtid-purged=OFF", "--column-statistics=0"]
    with at.connect() as connection:
        there = {str(row[0]) for row in connection.rows("SELECT schema_name FROM information_schema.schemata")}
    argv = [program(name), "--no-defaults", "-uroot", f"-h{at.host}", f"-P{at.port}", *_OPTIONS, *more, "--databases"]
    with path.open("wb") as out:
        wanted = [one for one in databases if one in there]
        subprocess.run([*argv, *wanted], stdout=out, stderr=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False)
