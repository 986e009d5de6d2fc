"""A drill of MySQL on a server started from programs beside kpbackup: like the source where that matters, gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.recovery import scratch_programs
from tests.integration import scenario
from tests.integration.deployment import Deployment, deploy, order
from tests.servers.mysql97 import mysql97_server

FUNCTION = "CREATE FUNCTION shop.tick() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM shop.orders; RETURN 1; END"


def programs(folder: Path, home: Path) -> Path:
    """A folder with a `mysqld` as if it were installed: the unpacked one needs to be told where its files are."""
    folder.mkdir()
    root, program = home / "root", folder / "mysqld"
    places = f"--basedir={root}/usr --plugin-dir={root}/usr/lib/mysql/plugin --lc-messages-dir={root}/usr/share/mysql"
    program.write_text(f'#!/bin/sh\nshift\nexec {home}/bin/mysqld --no-defaults {places} "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mysql97_programs: Path) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("drill")
    with mysql97_server(directory / "source", server_id=96) as source:
        made = deploy(directory / "deployment", source)
        source.execute("SET GLOBAL log_bin_trust_function_creators = ON", FUNCTION, "CREATE USER app@'10.%'")
        made.json("backup", "full")
        for number in range(3):
            order(source, f"after {number}")
        scenario.next_second(source)
        made.json("backup", "incremental")
        made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
        made.settings["drill"] = {"directory": str(directory), "programs": str(programs(directory / "bin", mysql97_programs))}
        made.write()
        yield made


def test_a_drill_on_a_mysql_started_for_it(made: Deployment) -> None:
    done = made.json("drill", "--to", "latest", timeout_s=600)
    assert done["passed"] and done["details"]["rows"] == "1000" and done["details"]["transactions"] == "3"
    assert int(done["details"]["tables_compared"]) >= 1
    assert list(Path(made.settings["drill"]["directory"]).glob("kpbackup-drill-*")) == []


def test_the_wrong_server_is_not_started(tmp_path: Path) -> None:
    """MariaDB installs a link `mysqld` to its own server."""
    real = tmp_path / "mariadbd"
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    os.symlink(real, tmp_path / "mysqld")
    with pytest.raises(errors.StepFailed, match="there is no MySQL server in .* mysqld is needed"):
        scratch_programs.find_programs(scratch_programs.Like("mysql"), str(tmp_path))
