"""`python -m soak.load`: many databases and tables in one instance, and a page of metrics that is asked for all the time.

A MariaDB with DATABASES databases (200), TABLES tables in all (10,000) and MEGABYTES of rows (5,000, split evenly): a full
backup of it, a restore into an empty server, the lists of tables and a sample of them compared by CHECKSUM. Then
`kpbackup daemon` on that repository: its processor time and memory over IDLE_S (60) in which nothing is due, and SCRAPES (1,000)
of /metrics spread over ten seconds.

Latency and idle processor time are honest only on a machine that does nothing else; the load before is kept with the figures.
With KEEP set to anything they are kept although fewer tables were made or a goal was missed. Needs three times MEGABYTES on the
disk of TMPDIR. Exit code 1 when something differs or a goal is missed. Writes docs/evidence/soak-load.json and
docs/benchmarks.md.
"""

from __future__ import annotations

import http.client
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, measure
from bench.published import publish
from tests.integration import scenario
from tests.integration.deployment import Deployment, deploy, until
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

PER_SCRAPE_S = 0.010  # a thousand in ten seconds
P99_LIMIT_S, IDLE_LIMIT_PERCENT, MEMORY_LIMIT_BYTES = 0.100, 1.0, 150 << 20
HOURS_S = 4 * 3600
ROW_BYTES = 1000
LARGE_OF = 10  # tables, one of which is large
SAMPLE = 200
FILLERS = 4
LOOK_S = 0.25  # between two looks at the memory of a job
WHOLE = {"databases": 200, "tables": 10_000, "megabytes": 5_000}


def main() -> int:
    asked = {name: int(os.environ.get(name.upper()) or number) for name, number in WHOLE.items()}
    found = run(**asked, scrapes=int(os.environ.get("SCRAPES") or 1000), idle_s=float(os.environ.get("IDLE_S") or 60))
    print(table(found))
    is_well = not found["differs"] and all(met for _, _, met in goals(found))
    if os.environ.get("KEEP") or (is_well and asked == WHOLE):
        publish("soak-load", found, table(found))
    return 0 if is_well else 1


def run(*, databases: int, tables: int, megabytes: int, scrapes: int, idle_s: float) -> dict[str, Any]:
    """All of it once; the document for the evidence."""
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    found: dict[str, Any] = {"made_at": made_at, **machine.commit(), "machine": machine.facts()}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kp-load-")))
        source = stack.enter_context(mariadb_server(directory / "source", server_id=61, options=["--table-open-cache=4000"]))
        target = stack.enter_context(mariadb_server(directory / "target", server_id=62, options=["--table-open-cache=4000"]))
        made = deploy(directory / "d", source)
        fill(source, databases=databases, tables=tables, megabytes=megabytes)
        found |= {"databases": databases, "tables": tables, "megabytes": megabytes}
        found["backup"] = _timed(made, "backup", "full")
        _for_restore(made, target)
        found["restore"] = _timed(made, "restore", "database", "--to", "latest", "--yes")
        found["differs"] = differences(source, target)
        found["inventory_bytes"] = sum(path.stat().st_size for path in made.store.rglob("data/*/*/inventory"))
        found |= _daemon(made, directory, scrapes=scrapes, idle_s=idle_s)
    return found


def fill(source: Server, *, databases: int, tables: int, megabytes: int) -> None:
    """Tables as applications have them: a key, an index, a text. One of ten holds nine tenths of the rows.

    (The same number in each would need twenty times the space: InnoDB gives nine megabytes to a table of half a megabyte.)
    """
    each = max(1, megabytes * 1_000_000 // ROW_BYTES // tables)
    most, few = each * LARGE_OF * 9 // 10, max(1, each * LARGE_OF // 10 // (LARGE_OF - 1))
    with source.connect() as connection:
        for number in range(databases):
            connection.execute(f"CREATE DATABASE load{number:03}")
    with ThreadPoolExecutor(FILLERS) as fillers:
        for _ in fillers.map(lambda nth: _fill(source, range(nth, tables, FILLERS), databases, (most, few)), range(FILLERS)):
            pass


def _fill(source: Server, numbers: Iterable[int], databases: int, sizes: tuple[int, int]) -> None:
    with source.connect() as connection:
        for number in numbers:
            rows = sizes[number // databases % LARGE_OF != 0]
            name = f"load{number % databases:03}"
            table = f"{name}.t{number // databases:04}"
            columns = "id INT PRIMARY KEY, of_day DATE NOT NULL, text VARCHAR(1000), KEY (of_day)"
            connection.execute(f"CREATE TABLE {table} ({columns})")
            connection.execute(
                f"INSERT INTO {table} SELECT seq, '2026-01-01' + INTERVAL seq % 300 DAY, REPEAT(MD5(seq + {number}), 30)"
                f" FROM {name}.seq_1_to_{rows}"
            )


def _timed(made: Deployment, *words: str) -> dict[str, Any]:
    """Wall and processor time of a command with its workers, and the memory they had at most together (proportional)."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    log, peak = made.directory / f"{words[0]}.log", 0
    process = made.start(*words, log=log)
    while process.poll() is None:
        if time.monotonic() - began > HOURS_S:
            process.kill()
        peak = max(peak, sum(map(_pss_bytes, measure.tree([process.pid]))))
        time.sleep(LOOK_S)
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}: {log.read_text()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(cpu, 1), "peak_pss_bytes": peak}


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _for_restore(made: Deployment, target: Server) -> None:
    made.settings["recovery"] = {"target": scenario.login(target), "deploy": {"driver": "none"}, "switch": {"driver": "none"}}
    made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
    made.write()


def differences(source: Server, target: Server) -> list[str]:
    """Tables that are on one server alone, or of a sample have other contents."""
    there, here = _tables(source), _tables(target)
    wrong = sorted(there ^ here)
    every = max(1, len(there) // SAMPLE)
    for name in sorted(there & here)[::every]:
        sums = [scenario.rows(server, f"CHECKSUM TABLE {name}")[0][1] for server in (source, target)]
        counts = [scenario.rows(server, f"SELECT COUNT(*) FROM {name}")[0][0] for server in (source, target)]
        if sums[0] != sums[1] or counts[0] != counts[1]:
            wrong.append(name)
    return wrong


def _tables(server: Server) -> set[str]:
    return {f"{schema}.{name}" for schema, name in scenario.rows(
        server, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema LIKE 'load%'")}


def _daemon(made: Deployment, directory: Path, *, scrapes: int, idle_s: float) -> dict[str, Any]:
    """A daemon for which nothing is due."""
    port = ports.free_port()
    made.settings["service"]["listen"] = f"127.0.0.1:{port}"
    made.settings["schedule"] = {"full": "0 0 1 1 *", "incremental": "0 0 1 1 *"}
    made.write()
    process = made.start("daemon", log=directory / "daemon.log")
    try:
        until(lambda: _answers(port, process), what="the daemon", timeout_s=300)
        until(lambda: _cpu_s(process.pid, over_s=2.0) < 0.2, what="the daemon to come to rest", timeout_s=600)
        idle = _cpu_s(process.pid, over_s=idle_s) / idle_s * 100
        taken = sorted(_scraped(port, scrapes))
        memory = _memory_bytes(process.pid)
    finally:
        process.terminate()
        process.wait(60)
    return {
        "idle_cpu_percent": round(idle, 2), "daemon_peak_bytes": memory, "scrapes": scrapes,
        "scrape_p50_ms": round(taken[len(taken) // 2] * 1000, 2), "scrape_p99_ms": round(taken[len(taken) * 99 // 100] * 1000, 2),
        "scrape_slowest_ms": round(taken[-1] * 1000, 2),
    }


def _answers(port: int, process: Any) -> bool:
    if process.poll() is not None:
        raise RuntimeError("the daemon ended by itself")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def _scraped(port: int, scrapes: int) -> Iterator[float]:
    """What each took, a connection each as Prometheus may do; asked for every ten milliseconds, or at once when late."""
    began = time.monotonic()
    for number in range(scrapes):
        time.sleep(max(0.0, began + number * PER_SCRAPE_S - time.monotonic()))
        asked = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200 and b"kpbackup_recovery_point_timestamp_seconds" in answer.read()
        connection.close()
        yield time.monotonic() - asked


def _cpu_s(pid: int, *, over_s: float) -> float:
    """Processor time the process takes in the next `over_s` seconds."""
    before = _ticks(pid)
    time.sleep(over_s)
    return (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory_bytes(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def goals(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(goal, measured, whether it was met)."""
    p99_ms = found["scrape_p99_ms"]
    return [
        ("1,000 scrapes within 10 s, p99 under 100 ms", f"{p99_ms} ms", p99_ms < P99_LIMIT_S * 1000),
        ("daemon at rest: under 1 % of a core", f"{found['idle_cpu_percent']} %", found["idle_cpu_percent"] < IDLE_LIMIT_PERCENT),
        ("daemon: under 150 MiB at most", _mib(found["daemon_peak_bytes"]), found["daemon_peak_bytes"] < MEMORY_LIMIT_BYTES),
    ]


def table(found: dict[str, Any]) -> str:
    where, changed = found["machine"], " with changes" if found["uncommitted_changes"] else ""
    lines = [
        f"Made at {found['made_at']} of commit `{found['commit'][:12]}`{changed}; {where['cpu']}, {where['cores']} cores, load"
        f" {where['load_1min']} before. {found['databases']:,} databases, {found['tables']:,} tables, {found['megabytes']:,} MB;"
        f" {len(found['differs'])} tables differ after the restore.",
        "", "| | wall | processor | memory of all its processes |", "|---|---:|---:|---:|",
    ]
    for name in ("backup", "restore"):
        one = found[name]
        lines.append(f"| full {name} | {one['seconds']:,} s | {one['cpu_seconds']:,} s | {_mib(one['peak_pss_bytes'])} |")
    lines += ["", f"The inventory of the set, sealed: {found['inventory_bytes']:,} bytes."]
    lines += ["", "| goal | measured | met |", "|---|---:|---|"]
    lines += [f"| {goal} | {measured} | {'yes' if met else 'no'} |" for goal, measured, met in goals(found)]
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
