"""`python -m soak.archive`: the continuous archive under fire, and not a transaction lost or there twice.

A MariaDB with RATE small transactions a second (1,000), one `kpbackup daemon` that is killed every 20 seconds, a store that fails
one request in ten, two restarts of the server. At the end every archived transaction is opened and counted against the source's
own table. docs/benchmarks.md says what is measured and how.

Environment: SECONDS (600), SEED (42), RATE, KEEP (any text: publish the figures although the run was short).
Exit code 1 when a goal is missed. Writes docs/evidence/soak-archive.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from bench import machine
from bench.published import publish
from kpbackup.model import canonical
from kpbackup.mysql import coordinates
from kpbackup.mysql import facts as server_facts
from kpbackup.plan import chain
from kpbackup.recovery import cut
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import catalog, layout
from kpbackup.repository.binding import Repository
from kpbackup.service import opening
from tests.integration.deployment import Deployment, deploy, until
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.faulty_proxy import Fault, FaultyProxy, refusal
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server, s3_server

BATCH = 10  # transactions sent together, each committed by itself
KILL_EVERY_S = 20.0
FAILING = 0.10
CALM_AFTER_S = 10.0  # a transaction is 'calm' when no fault of ours began so shortly before it
P50_LIMIT_S, P99_LIMIT_S = 3.0, 10.0
CATCH_UP_S = 180.0
LEAST_TO_PUBLISH_S = 180.0


class FailingProxy(FaultyProxy):
    """Fails a part of all requests: half of them are refused, of the other half the answer is lost after the work was done."""

    def __init__(self, target_port: int, *, seed: int) -> None:
        self._random = random.Random(seed)
        self.seen = self.failed = 0
        super().__init__(target_port)

    def take(self, request: bytes) -> Fault | None:
        if request.split(b" ", 1)[0] not in (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"):
            return None
        self.seen += 1
        if self._random.random() >= FAILING:
            return None
        self.failed += 1
        return Fault(b"", answer=refusal(503, "SlowDown")) if self._random.random() < 0.5 else Fault(b"")


class Writer:
    """Transaction n inserts row n. `sent[n - 1]` is the clock before its commit was sent: no latency comes out too short."""

    def __init__(self, source: Server, rate: int) -> None:
        self.sent = array("d")
        self._source, self._rate = source, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self.started = self.ended = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self.started = time.time()
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    self._write(connection)
            except (pymysql.MySQLError, OSError):
                self._stop.wait(0.05)  # it is being restarted
        self.ended = time.time()

    def _connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(
            host=self._source.host, port=self._source.port, user="root", database="soak", autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS, connect_timeout=5, read_timeout=30,
        )

    def _write(self, connection: pymysql.Connection[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COALESCE(MAX(n), 0) FROM t")
            (there,) = cursor.fetchone() or (0,)
            del self.sent[int(there) :]  # of a batch that was cut off, what was not committed is sent again
            while not self._stop.is_set():
                early_s = self.started + len(self.sent) / self._rate - time.time()
                if early_s > 0:
                    self._stop.wait(early_s)
                first = len(self.sent) + 1
                self.sent.extend([time.time()] * BATCH)
                cursor.execute(";".join(f"INSERT INTO t VALUES ({n}, REPEAT('x', 100))" for n in range(first, first + BATCH)))
                while cursor.nextset():
                    pass


class Watcher:
    """When each segment's manifest was first seen in the bucket: listed past the proxy, ten times a second."""

    def __init__(self, store: S3Server, bucket: str, prefix: str) -> None:
        self.seen: dict[str, float] = {}
        self._client, self._bucket = store.client(), bucket
        self._prefix = f"{prefix}/{layout.log_prefix('0001', 'segments')}"
        self._strip = len(prefix) + 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        last = ""
        while not self._stop.wait(0.1):
            found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, StartAfter=last)
            now = time.time()
            for one in found.get("Contents", []):
                last = one["Key"]
                self.seen[last[self._strip :]] = now


@dataclass
class Daemon:
    """The daemon under fire. `faults` are the moments at which something was done to it or to the source."""

    made: Deployment
    directory: Path
    kills: int = 0
    restarts: int = 0
    peak_kib: int = 0
    faults: list[float] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self.made.start("daemon", log=self.directory / "daemon.log")

    def kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the daemon ended by itself:\n{(self.directory / 'daemon.log').read_text()[-3000:]}")
        self._note_memory()
        self.faults.append(time.time())
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._note_memory()
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _note_memory(self) -> None:
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                self.peak_kib = max(self.peak_kib, int(line.split()[1]))


def main() -> int:
    seconds, seed = float(os.environ.get("SECONDS") or 600), int(os.environ.get("SEED") or 42)
    found = run(seconds=seconds, seed=seed)
    print(_table(found))
    if seconds >= LEAST_TO_PUBLISH_S or os.environ.get("KEEP"):
        publish("soak-archive", found, _table(found))
    return 1 if found["failures"] or not all(met for _, _, met in _goals(found)) else 0


def run(*, seconds: float, seed: int) -> dict[str, Any]:
    """The figures; `failures` tells what was lost or doubled, for that is never a matter of the machine."""
    rate = int(os.environ.get("RATE") or 1000)
    load = machine.facts()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kp-soak-")))
        source = stack.enter_context(mariadb_server(directory / "source", server_id=71))
        store = stack.enter_context(s3_server(directory / "s3"))
        store.create_bucket("soak")
        proxy = FailingProxy(int(store.endpoint_url.rpartition(":")[2]), seed=seed)
        stack.callback(proxy.close)
        made = deploy(directory / "d", source, url="s3://soak/r", endpoint_url=store.endpoint_url, environ=store.environ())
        source.execute("CREATE DATABASE soak", "CREATE TABLE soak.t (n INT PRIMARY KEY, filler CHAR(100))")
        made.json("backup", "full")
        repository = _direct(made, store)
        daemon = Daemon(_under_fire(made, proxy), directory)
        stack.callback(daemon.end)
        writer = Writer(source, rate)
        with Watcher(store, "soak", "r") as watcher:
            _fight(daemon, writer, source, seconds=seconds)
            until(lambda: _is_at_end(repository, source), what="the archive to catch up", timeout_s=CATCH_UP_S)
            daemon.end()
        found = _judge(repository, made, source, writer, watcher, daemon)
        found |= {
            "made_at": canonical.time_text(datetime.now(UTC)), "seconds": seconds, "seed": seed, "rate_asked": rate,
            "requests": proxy.seen, "requests_failed": proxy.failed, "machine": load, "mariadb": source.version,
        }
    wrong = {name: found[name] for name in ("lost", "doubled", "foreign") if found[name]}
    return {**found, "failures": [f"{count} transactions {name}" for name, count in wrong.items()]}


def _direct(made: Deployment, store: S3Server) -> Repository:
    for name, value in store.environ().items():
        os.environ[name] = value
    return made.open()


def _under_fire(made: Deployment, proxy: FailingProxy) -> Deployment:
    """The same deployment with its store behind the proxy and the archive continuous."""
    settings = {
        **made.settings,
        "repository": {**made.settings["repository"], "endpoint_url": proxy.url},
        "archive": {"continuous": True},
        "service": {"instance": "soak", "listen": f"127.0.0.1:{ports.free_port()}"},
        "schedule": {"full": "0 0 29 2 *", "incremental": "0 0 29 2 *"},
    }
    directory = made.directory / "under-fire"
    directory.mkdir()
    found = Deployment(directory, settings, made.environ)
    found.write()
    return found


def _fight(daemon: Daemon, writer: Writer, source: Server, *, seconds: float) -> None:
    daemon.start()
    writer.start()
    began = time.monotonic()
    next_kill, restarts = KILL_EVERY_S, [seconds / 3, seconds * 2 / 3]
    try:
        while (at := time.monotonic() - began) < seconds:
            if at >= next_kill:
                daemon.kill()
                daemon.start()
                next_kill += KILL_EVERY_S
            if restarts and at >= restarts[0]:
                restarts.pop(0)
                daemon.faults.append(time.time())
                source.restart()
                daemon.faults.append(time.time())
                daemon.restarts += 1
            time.sleep(0.05)
    finally:
        writer.stop()


def _is_at_end(repository: Repository, source: Server) -> bool:
    with source.connect() as connection:
        end = coordinates.read_coordinates(connection, server_facts.read_facts(connection))
    history = catalog.read_history(repository, "0001", tail=True)
    return bool(history.units) and (history.units[-1].end.file, history.units[-1].end.position) == (end.file, end.position)


def _judge(
    repository: Repository, made: Deployment, source: Server, writer: Writer, watcher: Watcher, daemon: Daemon
) -> dict[str, Any]:
    """Opens every segment and compares with the source's own table; one latency for each transaction."""
    identity = _with_identity(made)
    history = catalog.read_history(replace(repository, verified={}, stretches={}), "0001")
    (found,) = chain.chains(catalog.detailed(repository, history, history.units))
    if found.gap is not None:
        raise RuntimeError(f"the archive has a gap: {found.gap.reason}")
    reader = SegmentReader(repository, opening.identities(identity.load()))
    first = int(found.backup_set.coordinates.gtid.rpartition("-")[2])
    seqs = array("q")
    latencies: list[tuple[float, float]] = []  # commit, how long until it was restorable
    for segment in found.segments:
        seen = watcher.seen[segment.head.key]
        for transaction in cut.transactions(reader, segment):
            seqs.append(int(transaction.gtid.rpartition("-")[2]))
            number = seqs[-1] - first
            if 0 < number <= len(writer.sent):
                latencies.append((writer.sent[number - 1], seen - writer.sent[number - 1]))
    with source.connect() as connection:
        rows = int(connection.value("SELECT COUNT(*) FROM soak.t"))
        last = int(str(connection.value("SELECT @@gtid_binlog_pos")).rpartition("-")[2])
    wanted = set(range(first + 1, last + 1))
    if len(wanted) != rows:
        raise RuntimeError(f"the source counts {rows} rows and {len(wanted)} transactions")
    calm = [took for at, took in latencies if not any(fault <= at < fault + CALM_AFTER_S for fault in _spans(daemon.faults))]
    return {
        "transactions": rows, "archived": len(seqs), "lost": len(wanted - set(seqs)), "doubled": len(seqs) - len(set(seqs)),
        "foreign": len(set(seqs) - wanted), "rate": round(rows / (writer.ended - min(writer.sent)), 1),
        "segments": len(found.segments), "kills": daemon.kills, "server_restarts": daemon.restarts,
        "daemon_peak_mib": round(daemon.peak_kib / 1024), "latency": _quantiles([took for _, took in latencies]),
        "latency_calm": _quantiles(calm),
    }


def _with_identity(made: Deployment) -> Deployment:
    """The deployment with the identity, which the daemon never had."""
    settings = {**made.settings, "encryption": {"identity_file": str(made.keys / "identity.txt")}}
    directory = made.directory / "reader"
    directory.mkdir()
    found = Deployment(directory, settings, made.environ)
    found.write()
    return found


def _spans(faults: Sequence[float]) -> Iterator[float]:
    """A fault counts a little before its moment too: what waited for a segment was lost with the process."""
    yield from (moment - 4.0 for moment in faults)
    yield from faults


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=1000, method="inclusive") if len(values) > 1 else [0.0] * 999
    return {
        "transactions": len(values), "p50_s": round(cuts[499], 2), "p90_s": round(cuts[899], 2), "p99_s": round(cuts[989], 2),
        "max_s": round(max(values, default=0.0), 2),
    }


def _goals(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(goal, found, met)."""
    latency = found["latency"]
    return [
        ("transactions lost, doubled, or not the source's", f"{found['lost']}, {found['doubled']}, {found['foreign']}",
         not (found["lost"] or found["doubled"] or found["foreign"])),
        (f"commit to restorable, p50 under {P50_LIMIT_S:g} s", f"{latency['p50_s']:.2f} s", latency["p50_s"] < P50_LIMIT_S),
        (f"commit to restorable, p99 under {P99_LIMIT_S:g} s", f"{latency['p99_s']:.2f} s", latency["p99_s"] < P99_LIMIT_S),
        (f"transactions a second, {found['rate_asked']:,} asked for", f"{found['rate']:,.0f}",
         found["rate"] >= 0.95 * found["rate_asked"]),
    ]  # fmt: skip


def _table(found: dict[str, Any]) -> str:
    load = found["machine"]
    lines = [
        f"Made at {found['made_at']}: {found['seconds']:g} s, seed {found['seed']}, MariaDB {found['mariadb']}; {load['cpu']},"
        f" {load['cores']} cores shared by all of it, load {load['load_1min']} before the run.",
        "",
        f"{found['transactions']:,} transactions in {found['segments']:,} segments; the daemon was killed {found['kills']} times,"
        f" the server restarted {found['server_restarts']} times, {found['requests_failed']:,} of {found['requests']:,} requests"
        f" failed. The daemon's memory never exceeded {found['daemon_peak_mib']} MiB.",
        "",
        "| commit to restorable | transactions | p50 s | p90 s | p99 s | max s |", "|---|---|---|---|---|---|",
    ]
    for name, label in (("latency", "all"), ("latency_calm", "without a fault shortly before")):
        one = found[name]
        lines.append(
            f"| {label} | {one['transactions']:,} | {one['p50_s']:.2f} | {one['p90_s']:.2f} | {one['p99_s']:.2f}"
            f" | {one['max_s']:.2f} |"
        )
    lines += ["", "| goal | found | |", "|---|---|---|"]
    lines += [f"| {goal} | {text} | {'met' if met else '**missed**'} |" for goal, text, met in _goals(found)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
