"""The servers and the two machines of the demo, in one temporary directory that is removed at the end.

The directories have spaces in their names on purpose. `backup machine` knows the source and the public half of the encryption
key; `recovery machine` knows the repository, the private identity and a target, and never heard of the source.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from demo import truth
from demo.clusters import Clusters
from demo.narrator import Machine
from tests.servers.database import Server
from tests.servers.kubepolaris.deployed import NAME
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server, s3_server

BUCKET = "backups"
PREFIX = "kubepolaris"
BACKUP_ACCOUNT = "'kpbackup'@'127.0.0.1'"
GRANT = (  # what `kpbackup doctor` asks for, and nothing that writes
    "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS, REPLICATION SLAVE, BINLOG MONITOR ON *.*"
    f" TO {BACKUP_ACCOUNT}"
)
_LARGE = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M")
_OWN_SERVER_ID, _TARGET_SERVER_ID = 11, 12


@dataclass
class Stage:
    """Everything that runs. The targets are started when they are needed, one after the other."""

    directory: Path
    options: tuple[str, ...]
    source: Server
    store: S3Server
    backup: Machine
    recovery: Machine
    clusters: Clusters
    target: Server | None = None
    _target_stack: ExitStack = field(default_factory=ExitStack)

    def fresh_target(self, *, with_application: bool = False) -> Server:
        """A new, empty server; the one before is gone with its data. With the application: and an empty cluster before it."""
        self.end_target()
        started = mariadb_server(self.directory / "target", server_id=_TARGET_SERVER_ID, options=self.options)
        self.target = self._target_stack.enter_context(started)
        steps = self.clusters.recovery_settings(self.target, self.recovery.file("verifier")) if with_application else {}
        write_settings(self.recovery, self._recovery_settings(self.target.port, steps))
        return self.target

    def end_target(self) -> None:
        self.clusters.lose_new()
        self._target_stack.close()
        shutil.rmtree(self.directory / "target", ignore_errors=True)

    def take_identity_away(self) -> None:
        """Moves the private identity to the recovery machine and copies the public signing key there."""
        keys = self.recovery.file("keys")
        keys.mkdir(mode=0o700)
        shutil.move(self.backup.file("keys/identity.txt"), keys)
        shutil.copy(self.backup.file("keys/signing.pub"), keys)

    def write_backup_settings(self, *, listen_port: int) -> None:
        keys, password = self.backup.file("keys"), self.backup.file("password")
        write_settings(self.backup, {
            "source": {"host": "127.0.0.1", "port": self.source.port, "user": "kpbackup", "password_file": str(password)},
            "repository": self._repository(),
            "encryption": {"recipients_file": str(keys / "recipients.txt")},
            "signing": {"key_file": str(keys / "signing.key"), "public_keys_file": str(keys / "signing.pub")},
            "archive": {"continuous": True},
            "service": {"listen": f"127.0.0.1:{listen_port}"},
            "application": {"kubeconfig": str(self.clusters.origin_config), "namespace": NAME, "release": NAME},
        })

    def _recovery_settings(self, port: int, steps: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "repository": self._repository(),
            "encryption": {"identity_file": str(self.recovery.file("keys/identity.txt"))},
            "signing": {"public_keys_file": str(self.recovery.file("keys/signing.pub"))},
            "recovery": {"target": {"host": "127.0.0.1", "port": port, "user": "root"}, **steps},
        }

    def _repository(self) -> Mapping[str, str]:
        return {"url": f"s3://{BUCKET}/{PREFIX}", "endpoint_url": self.store.endpoint_url}


@contextmanager
def stage(*, is_large: bool) -> Iterator[Stage]:
    """The running source and store and the two machines; servers and directory are gone afterwards, whatever happens."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="kpdemo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        options = _LARGE if is_large else ()
        source = stack.enter_context(mariadb_server(directory / "source", server_id=_OWN_SERVER_ID, options=options))
        store = stack.enter_context(s3_server(directory / "store"))
        store.create_bucket(BUCKET)
        backup, recovery = (_machine(directory / f"{name} machine", name, store) for name in ("backup", "recovery"))
        clusters = Clusters(directory)
        set_up = Stage(directory, options, source, store, backup, recovery, clusters)
        stack.callback(set_up.end_target)
        stack.callback(clusters.lose_origin)
        yield set_up


def create_backup_account(connection: pymysql.Connection[Any], machine: Machine) -> None:
    """The least account that kpbackup needs on a source; its password goes into a file of the backup machine."""
    password = secrets.token_hex(16)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE USER {BACKUP_ACCOUNT} IDENTIFIED BY '{password}'")
        cursor.execute(GRANT)
    path = machine.file("password")
    path.touch(mode=0o600)
    path.write_text(password + "\n")


def write_settings(machine: Machine, settings: Mapping[str, Any]) -> None:
    """Writes kpbackup.yaml: one group a line, each in JSON, which is YAML too."""
    lines = [f"{group}: {json.dumps(values, ensure_ascii=False)}" for group, values in settings.items()]
    machine.file("kpbackup.yaml").write_text("\n".join(lines) + "\n")


def root(server: Server) -> pymysql.Connection[Any]:
    """The demo's own session as root."""
    return truth.connect(server.port)


def _machine(directory: Path, name: str, store: S3Server) -> Machine:
    directory.mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environ = {
        **kept, **store.environ(), "HOME": str(directory), "LANG": "C.UTF-8", "KPBACKUP_CONFIG": str(directory / "kpbackup.yaml"),
        "PYTHONUNBUFFERED": "1",  # its two streams in the order they were written
    }
    return Machine(name, directory, environ)
