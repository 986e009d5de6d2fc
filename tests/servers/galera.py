"""Nodes of a Galera cluster: the MariaDB of `mariadb.py` with Galera's library, fetched once per machine (0.8 MB).

A state transfer (SST) needs programs that are not here, so a node joins with the data directory of a fresh server and the claim
that it is where the cluster is: true as long as nothing was written before it joins. `listen` is the port of the group's own
protocol.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import database, mariadb, ports
from tests.servers.fetched import fetched
from tests.servers.process import ServerFailed

JOIN_TIMEOUT_S = 180.0


@contextmanager
def galera_node(
    directory: Path, *, server_id: int, listen: int, first: tuple[database.Server, int] | None = None, options: Sequence[str] = ()
) -> Iterator[database.Server]:
    """A node that is synced: the first of a cluster, or one that joins the `first` (with its `listen`).

    Raises:
        fetched.FetchFailed, process.ServerFailed.
    """
    library = fetched("galera-4", alone=["galera-4"]) / "root/usr/lib/galera/libgalera_smm.so"
    given = [
        "--wsrep-on=ON", f"--wsrep-provider={library}", "--wsrep-node-address=127.0.0.1", "--innodb-autoinc-lock-mode=2",
        f"--wsrep-cluster-address=gcomm://{f'127.0.0.1:{first[1]}' if first else ''}",
        f"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{listen};ist.recv_addr=127.0.0.1:{ports.free_port()};"
        "gcache.size=8M",
    ]
    if first is not None:
        given.append(f"--wsrep-start-position={_state_of(first[0], directory)}")
    with mariadb.mariadb_server(directory, server_id=server_id, options=[*given, *options]) as node:
        _wait_until_synced(node)
        yield node


def _state_of(first: database.Server, directory: Path) -> str:
    """Where the cluster is; a data directory that claims to be there too is made."""
    with first.connect() as connection:
        names = ("wsrep_cluster_state_uuid", "wsrep_last_committed")
        uuid, position = (str((connection.row(f"SHOW STATUS LIKE '{name}'") or ("", ""))[1]) for name in names)
    shutil.copytree(mariadb._template(), directory / "data")
    state = f"# GALERA saved state\nversion: 2.1\nuuid:    {uuid}\nseqno:   {position}\nsafe_to_bootstrap: 0\n"
    (directory / "data" / "grastate.dat").write_text(state, encoding="utf-8")
    return f"{uuid}:{position}"


def is_synced(node: database.Server) -> bool:
    """Whether the node takes part in a cluster and is up to date."""
    with node.connect() as connection:
        found = connection.row("SHOW STATUS LIKE 'wsrep_local_state_comment'")
    return found is not None and found[1] == "Synced"


def _wait_until_synced(node: database.Server) -> None:
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while not is_synced(node):
        if time.monotonic() > deadline:
            raise ServerFailed(f"the Galera node on port {node.port} is not synced after {JOIN_TIMEOUT_S:g} s")
        time.sleep(0.05)
