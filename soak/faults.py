"""Random faults against real processes: kpbackup, its store, its source and its target, and the network between them.

One round is one job of the program (full backup, incremental, prune, check) on a bank that is being used, with one fault:
the process is killed with SIGKILL when the store has seen its n-th request; the store refuses (500, 503 SlowDown), cuts an
answer, stalls; the source is killed and started again in the middle. After every round it is asked:

- does everything verify that a manifest claims (`check --read-data 100%`), and is no gap there that was not there before;
- was a success only said when it is in the store;
- every few rounds, with the bank at rest: does a restore to the newest point, itself killed once and resumed, equal the source.

The choice of faults depends on the seed alone; how far a job is when one hits depends on the machine too.

Environment: SECONDS (default 300), SEED (default 1). Exit code 1 when something failed; what went well is kept as
docs/evidence/soak-faults.json, from which `soak.pages` makes docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from soak import pages
from tests.integration import bank, scenario
from tests.integration.scenario import Ended, Scene
from tests.servers.database import Server
from tests.servers.faulty_proxy import Fault, FaultyProxy, faulty_proxy, refusal
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server, s3_server

BUCKET = "soak"
JOBS = ("full", "incremental", "incremental", "incremental", "prune", "check")
FAULTS = (*["kill"] * 6, *["500", "503", "cut", "source crash"] * 2, "stall", "none")  # a stall costs a minute
RESTORE_EVERY = 12
REQUESTS = {"full": 60, "incremental": 30, "prune": 40, "check": 60, "restore": 60}  # about how many a job sends
WORDS = {
    "full": ("backup", "full"), "incremental": ("backup", "incremental"), "prune": ("prune",),
    "check": ("check", "--read-data", "100%"),
}
CLEAR = frozenset({0, 12, 15, 17, 19, 24, 25, 26, 28, 30})  # ends that say what happened
PATIENCE_S = 180
RESTART_S = 1.0


@dataclass
class Round:
    number: int
    job: str
    fault: str
    at: int  # the request that is hit


@dataclass
class Found:
    """What a soak adds up to."""

    rounds: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    by_job: Counter[str] = field(default_factory=Counter)
    hit: int = 0
    successes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    checks: int = 0
    restores: int = 0
    killed_restores: int = 0
    transfers: int = 0
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds, "faults": dict(sorted(self.by_fault.items())), "jobs": dict(sorted(self.by_job.items())),
            "faults_that_hit": self.hit, "successes": self.successes, "killed_jobs": self.killed,
            "clear_errors_by_exit_code": dict(sorted(self.errors.items())), "whole_checks": self.checks,
            "restores_compared": self.restores, "restores_killed_and_resumed": self.killed_restores,
            "transfers_written": self.transfers, "failures": self.failures,
        }


class Soak:
    """The stage of all rounds: a bank on fire, a repository behind a proxy, an empty target."""

    def __init__(self, directory: Path, source: Server, target: Server, store: S3Server, proxy: FaultyProxy) -> None:
        self.source, self.target, self.proxy, self.found = source, target, proxy, Found()
        self.scene = Scene(
            directory, url=f"s3://{BUCKET}/repository", source=source, target=target, endpoint_url=proxy.url,
            environ=store.environ(),
        )
        self.scene.settings["source"]["databases"] = ["bank"]
        self.scene.settings["retention"] = {"days": 1, "complete_chains": 2}
        self._client = store.client()

    def play(self, one: Round) -> None:
        """One round: the job, its fault, and what is found after it."""
        ended = self._run(one)
        self.found.rounds += 1
        self.found.by_fault[one.fault] += 1
        self.found.by_job[one.job] += 1
        self.proxy.plan([])
        if ended.code == -signal.SIGKILL:
            self.found.killed += 1
        elif ended.code == 0:
            self.found.successes += 1
        else:
            self.found.errors[str(ended.code)] += 1
            if ended.code not in CLEAR or "Traceback" in ended.err:
                self._fail(one, f"ended with {ended.code}: {ended.err[-600:]}")
        self._judge(one, ended)

    def _run(self, one: Round, *words: str) -> Ended:
        words = words or WORDS[one.job]
        self.proxy.plan(list(self._planned(one)))
        process = self.scene.start("--json", *words)
        with self._beside(one, process):
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                self._fail(one, "hangs")
        return Ended(process.returncode, out, err)

    def _planned(self, one: Round) -> Iterator[Fault]:
        """The proxy takes one fault a request: those before the one to hit let it pass."""
        answers = {"500": refusal(500, "InternalError"), "503": refusal(503, "SlowDown")}
        if one.fault in answers:
            yield from [Fault(b"", after_bytes=1 << 40)] * (one.at - 1)
            yield from [Fault(b"", answer=answers[one.fault])] * 3  # it is tried again, more often than that
        elif one.fault in ("cut", "stall"):
            yield from [Fault(b"", after_bytes=1 << 40)] * (one.at - 1)
            yield Fault(b"", after_bytes=40, stalls=one.fault == "stall")

    @contextlib.contextmanager
    def _beside(self, one: Round, process: subprocess.Popen[str]) -> Iterator[None]:
        """Kills the process, or the source, when the store has seen so many requests."""
        if one.fault not in ("kill", "source crash"):
            yield
            self.found.hit += len(self.proxy.requests) >= one.at
            return

        def strike() -> None:
            while process.poll() is None:
                if len(self.proxy.requests) >= one.at:
                    self.found.hit += 1
                    if one.fault == "kill":
                        process.kill()
                    else:
                        self.source.kill()
                        time.sleep(RESTART_S)
                        self.source.restart()
                    return
                time.sleep(0.001)

        thread = threading.Thread(target=strike)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _judge(self, one: Round, ended: Ended) -> None:
        self._release_leases()
        report = self.scene.run("--json", "check", "--read-data", "100%")
        self.found.checks += 1
        if report.code != 0:
            self._fail(one, f"check ends with {report.code}: {report.out[-600:]} {report.err[-600:]}")
            return
        listed = self.scene.ok("list")
        sets = [entry["set"] for entry in listed["sets"]]
        if one.job == "full" and ended.code == 0 and ended.document["set"] not in sets:
            self._fail(one, f"said that set {ended.document['set']} is stored, the store has {sets}")
        if listed["damaged"]:
            self._fail(one, f"damaged: {listed['damaged']}")
        gaps = [window for window in listed["windows"] if window["gap"] and "fork" not in str(window["gap"])]
        if gaps and one.fault != "source crash":
            self._fail(one, f"gaps: {gaps}")

    def restore(self, number: int, place: random.Random) -> None:
        """To the newest point, killed once on the way and resumed: promises kept, and no hole among the transfers."""
        one = Round(number, "restore", "kill", place.randint(1, REQUESTS["restore"]))
        self._release_leases()
        made = self.scene.run("--json", "backup", "incremental")
        if made.code == 24:
            made = self.scene.run("--json", "backup", "full")  # a chain that is broken needs a new set, and says so
        if made.code != 0:
            self._fail(one, f"no backup without faults: {made.err[-600:]}")
            return
        scenario.wipe(self.target)
        words = ("restore", "database", "--to", "latest", "--yes")
        ended = self._run(one, *words)
        self.proxy.plan([])
        self.found.killed_restores += ended.code == -signal.SIGKILL
        if ended.code != 0:
            begun = [run for run in self.scene.ok("recoveries")["recoveries"] if run["state"] != "finished"]
            ended = self.scene.run("--json", "restore", "--resume", begun[-1]["run"]) if begun else self.scene.run(*words)
        if ended.code != 0:
            self._fail(one, f"ends with {ended.code}: {ended.err[-600:]}")
            return
        self.found.restores += 1
        if broken := bank.broken_promises(self.target):
            self._fail(one, f"broken promises: {broken[:3]}")
        if scenario.truth(self.target) != scenario.truth(self.source):
            self._fail(one, "the target differs from the quiet source")

    def _release_leases(self) -> None:
        """Those of dead processes would have to be waited for; that they are waited out is tested elsewhere."""
        for one in self._client.list_objects_v2(Bucket=BUCKET, Prefix="repository/leases/").get("Contents", ()):
            self._client.delete_object(Bucket=BUCKET, Key=one["Key"])

    def _fail(self, one: Round, why: str) -> None:
        self.found.failures.append(f"round {one.number} ({one.job}, {one.fault} at {one.at}): {why}")

def rounds(seed: int) -> Iterator[Round]:
    """What is done in which round: the seed alone decides."""
    place = random.Random(seed)
    number = 0
    while True:
        number += 1
        job, fault = place.choice(JOBS), place.choice(FAULTS)
        yield Round(number, job, fault, place.randint(1, REQUESTS[job]))


def run(*, seconds: float, seed: int) -> dict[str, Any]:
    """Rounds until the time is over; the document for the evidence."""
    directory = Path(tempfile.mkdtemp(prefix="kpbackup-soak-"))
    try:
        with (
            mariadb_server(directory / "source", server_id=91) as source,
            mariadb_server(directory / "target", server_id=92) as target,
            s3_server(directory / "s3") as store, faulty_proxy(store.port) as proxy,
        ):
            store.create_bucket(BUCKET)
            bank.create(source, ballast_rows=1000)
            soak = Soak(directory / "scene", source, target, store, proxy)
            return _play(soak, time.monotonic() + seconds, seed)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _play(soak: Soak, deadline: float, seed: int) -> dict[str, Any]:
    soak.scene.ok("init", "--keys", str(soak.scene.keys))
    soak.scene.ok("backup", "full")
    place = random.Random(-seed)
    for one in rounds(seed):
        if time.monotonic() > deadline:
            break
        with bank.Fire(soak.source, writers=2, pause_s=0.02, queries=False, survives=True) as fire:
            soak.play(one)
        soak.found.transfers += fire.transfers
        if one.number % RESTORE_EVERY == 0:
            soak.restore(one.number, place)
        if soak.found.failures:
            break
    if not soak.found.failures:
        soak.restore(one.number, place)
    return soak.found.document()


def main() -> int:
    seconds, seed = float(os.environ.get("SECONDS") or 300), int(os.environ.get("SEED") or 1)
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    before = {"made_at": made_at, **machine.commit(), "seconds": round(seconds), "seed": seed, "machine": machine.facts()}
    document = {**before, **run(seconds=seconds, seed=seed)}
    print(json.dumps(document, indent=1))
    if document["failures"]:
        print(f"soak: faults FAILED {len(document['failures'])} times", file=sys.stderr)
        return 1
    pages.EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return pages.main()


if __name__ == "__main__":
    sys.exit(main())
