"""`python -m soak.faults`: random faults against real processes: kpbackup, its store, its source and its target, and the network.

One round is one job of the program (full backup, incremental, prune, check) on a bank that is being used, with one fault of
`soak/rounds.py`, at one request of the job to the store. After every round it is asked, past the faults:

- does `check` find everything whole that a manifest claims, without a gap; every ten rounds it reads and opens every byte;
- was a success only said when it is in the store.

Every 50 rounds, with the bank at rest: does a restore to the newest point, itself killed once and resumed, equal the source, and
are the promises of the bank kept.

The choice of faults depends on the seed alone; how far a job is when one hits depends on the machine too. To be cheap enough for
thousands of rounds, jobs are forks of a process that has imported the program (soak/forks.py), and prune works as it would three
days later, so that it has something to do and the repository stays small. Restores are processes as users start them.

Environment: ROUNDS (default 1000) or SECONDS end it, whichever comes first; SEED (default 1). Exit code 1 when something failed;
what went well is kept as docs/evidence/soak-faults.json, from which `soak.pages` makes docs/reliability.md.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench import machine
from kpbackup import config
from kpbackup.model.catalog import Catalog
from kpbackup.pipeline import encrypt
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import check
from kpbackup.repository.binding import Repository
from kpbackup.service import opening
from soak import forks, pages
from soak.clock import Clock, library
from soak.line import Kind, Line
from soak.rounds import BYTES, REQUESTS, Round, answers, rounds
from tests.integration import bank, scenario
from tests.integration.scenario import Ended, Scene
from tests.servers.database import Server
from tests.servers.faulty_proxy import Fault, FaultyProxy
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server, s3_server

BUCKET = "soak"
READ_ALL_EVERY = 10
RESTORE_EVERY = 50
DAYS_AHEAD = 3
WORDS = {"full": ("backup", "full"), "incremental": ("backup", "incremental"), "check": ("check", "--read-data", "20%")}
CLEAR = frozenset({0, 12, 15, 17, 19, 24, 25, 26, 28, 30})  # ends that say what happened
PATIENCE_S = 300
DELAY_S = 1.0
RESTART_S = 0.3
LINE: dict[str, Kind] = {"line drops": "drop", "line stalls": "stall", "line is slow": "delay"}


class Striking(FaultyProxy):
    """Calls `strike` as soon as request number `at` has come, before the store sees it."""

    def __init__(self, target_port: int) -> None:
        self._at, self._strike, self.has_struck = 0, _nothing, False
        super().__init__(target_port)

    def set(self, faults: list[Fault], *, at: int, strike: Callable[[], None]) -> None:
        self._at, self._strike, self.has_struck = at, strike, False
        self.plan(faults)

    def take(self, request: bytes) -> Fault | None:
        fault = super().take(request)
        if self._at and not self.has_struck and len(self.requests) >= self._at:
            self.has_struck = True
            self._strike()
        return fault


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Clocks:
    """That of the jobs, and that of the source."""

    ours: Clock
    of_source: Clock


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
    whole_checks: int = 0
    restores: int = 0
    killed_restores: int = 0
    pruned: Counter[str] = field(default_factory=Counter)
    transfers: int = 0
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds, "faults": dict(sorted(self.by_fault.items())), "jobs": dict(sorted(self.by_job.items())),
            "faults_that_hit": self.hit, "successes": self.successes, "killed_jobs": self.killed,
            "clear_errors_by_exit_code": dict(sorted(self.errors.items())), "checks": self.checks,
            "checks_that_read_every_byte": self.whole_checks, "restores_compared": self.restores,
            "restores_killed_and_resumed": self.killed_restores,
            "sets_pruned": self.pruned["sets"], "segments_pruned": self.pruned["segments"],
            "objects_deleted": self.pruned["deleted"], "transfers_written": self.transfers, "failures": self.failures,
        }


class Soak:
    """The stage of all rounds: a bank on fire, a repository behind a proxy, an empty target."""

    def __init__(
        self, directory: Path, source: Server, target: Server, store: S3Server, proxy: Striking, line: Line, *, clocks: Clocks
    ) -> None:
        self.source, self.target, self.proxy, self.line, self.clocks = source, target, proxy, line, clocks
        self.found = Found()
        self.scene = Scene(
            directory, url=f"s3://{BUCKET}/repository", source=source, target=target, endpoint_url=proxy.url,
            environ=store.environ(),
        )
        self.scene.settings["source"] |= {"databases": ["bank"], "max_connections": 3, "port": line.port}
        self._repository: Repository
        self._identities: tuple[encrypt.Identity, ...]
        self.scene.settings["retention"] = {"days": 1, "complete_chains": 2, "grace_period": "0s"}
        self._client = store.client()
        self._faulty, self._direct = directory / "faulty.yaml", directory / "direct.yaml"
        self._faulty.write_text(yaml.safe_dump(self.scene.settings))
        direct = {**self.scene.settings["repository"], "endpoint_url": store.endpoint_url}
        self._direct.write_text(yaml.safe_dump({**self.scene.settings, "repository": direct}))

    def begin(self) -> None:
        """The first set."""
        self.scene.ok("init", "--keys", str(self.scene.keys))
        self.scene.ok("backup", "full")
        settings = config.load(self._direct, {})
        self._repository, self._identities = opening.reading_repository(settings), opening.identities(settings)

    def environ(self) -> dict[str, str]:
        """Of the jobs, whose clock may jump."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KPBACKUP_", "AWS_"))}
        return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **self.scene.environ, **self.clocks.ours.environ()}

    def play(self, one: Round, at: forks.Forks) -> None:
        """One round: the job, its fault, and what is found after it."""
        ended = self._run(one, at)
        self.found.rounds += 1
        self.found.by_fault[one.fault] += 1
        self.found.by_job[one.job] += 1
        if ended.code == -signal.SIGKILL:
            self.found.killed += 1
        elif ended.code == 0:
            self.found.successes += 1
            if one.job == "prune":
                self.found.pruned.update(ended.document)
        else:
            self.found.errors[str(ended.code)] += 1
            if ended.code not in CLEAR or "Traceback" in ended.err:
                self._fail(one, f"ended with {ended.code}: {ended.err[-600:]}")
        self._judge(one, ended)

    def _run(self, one: Round, at: forks.Forks) -> Ended:
        words: tuple[str, ...] = (forks.AHEAD, str(DAYS_AHEAD), str(self._faulty))
        if one.job != "prune":
            words = ("--config", str(self._faulty), "--json", *WORDS[one.job])
        running = at.start(*words)
        with self._struck(one, running.kill):
            ended = running.ended(timeout_s=PATIENCE_S)
            if ended is None:
                running.kill()
                ended = running.ended(timeout_s=PATIENCE_S)
                self._fail(one, "hangs")
        assert ended is not None
        return ended

    @contextlib.contextmanager
    def _struck(self, one: Round, kill: Callable[[], None]) -> Iterator[None]:
        """The fault of a round, while its job runs; afterwards the store and the source are well again."""
        crash = threading.Thread(target=self._crash)
        strikes = {
            "kill": kill, "source crash": crash.start, "delay": lambda: time.sleep(DELAY_S),
            "our clock jumps": lambda: self.clocks.ours.jump(one.jump_s),
            "source's clock jumps": lambda: self.clocks.of_source.jump(one.jump_s),
        }
        planned, on_line = answers(one), LINE.get(one.fault)
        self.proxy.set(planned, at=one.at, strike=strikes.get(one.fault, _nothing))
        if on_line is not None:
            self.line.set(on_line, after_bytes=one.at * BYTES[one.job])
        try:
            yield
        finally:
            is_hit = len(self.proxy.pending()) < len(planned) - one.at + 1 if planned else self.proxy.has_struck
            self.found.hit += self.line.has_struck if on_line is not None else is_hit and one.fault != "none"
            self.proxy.set([], at=0, strike=_nothing)
            self.line.set("")
            self.clocks.ours.jump(0)
            self.clocks.of_source.jump(0)
            if crash.ident is not None:
                crash.join()

    def _crash(self) -> None:
        self.source.kill()
        time.sleep(RESTART_S)
        self.source.restart()

    def _judge(self, one: Round, ended: Ended) -> None:
        """What is in the store now, read by nobody before."""
        self._release_leases()
        fresh = replace(self._repository, verified={}, stretches={})
        reads = one.number % READ_ALL_EVERY == 0
        report = check.check(fresh, read_percent=100 if reads else 0, identities=self._identities)
        self.found.checks += 1
        self.found.whole_checks += reads
        if report.problems:
            self._fail(one, f"check finds {report.problems[:3]}")
        elif ended.code == 0 and one.job in ("full", "incremental"):
            self._find(one, ended.document, catalogs.read_catalog(fresh))

    def _find(self, one: Round, said: Any, catalog: Catalog) -> None:
        """What a job said to be stored is there."""
        if one.job == "full" and said["set"] not in [entry.name for history in catalog.histories for entry in history.sets]:
            self._fail(one, f"said that set {said['set']} is stored, and it is not there")
        if one.job == "incremental" and said["segments"]:
            ends = [str(unit.end) for history in catalog.histories for unit in history.units[-1:]]
            if said["coordinates"] not in ends:
                self._fail(one, f"said that the archive ends at {said['coordinates']}, it ends at {ends}")

    def restore(self, number: int, place: random.Random) -> None:
        """To the newest point, killed once on the way and resumed: promises kept, and no hole among the transfers."""
        one = Round(number, "restore", "kill", place.randint(1, REQUESTS["restore"]))
        made = self.scene.run("--json", "backup", "incremental")
        if made.code == 24:
            made = self.scene.run("--json", "backup", "full")  # a chain that is broken needs a new set, and says so
        if made.code != 0:
            self._fail(one, f"no backup without faults: {made.err[-600:]}")
            return
        scenario.wipe(self.target)
        words = ("restore", "database", "--to", "latest", "--yes")
        ended = self._killed_restore(one, words)
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

    def _killed_restore(self, one: Round, words: tuple[str, ...]) -> Ended:
        process = self.scene.start("--json", *words)
        with self._struck(one, process.kill):
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                self._fail(one, "hangs")
        self.found.killed_restores += process.returncode == -signal.SIGKILL
        return Ended(process.returncode, out, err)

    def _release_leases(self) -> None:
        """Those of dead processes would have to be waited for; that they are waited out is tested elsewhere."""
        for one in self._client.list_objects_v2(Bucket=BUCKET, Prefix="repository/leases/").get("Contents", ()):
            self._client.delete_object(Bucket=BUCKET, Key=one["Key"])

    def _fail(self, one: Round, why: str) -> None:
        self.found.failures.append(f"round {one.number} ({one.job}, {one.fault} at {one.at}): {why}")


def run(*, seconds: float, most_rounds: int, seed: int) -> dict[str, Any]:
    """Rounds until there were enough or the time is over; the document for the evidence."""
    directory = Path(tempfile.mkdtemp(prefix="kpbackup-soak-"))
    try:
        made = library(directory)
        clocks = Clocks(Clock(directory / "clock", made), Clock(directory / "clock-of-source", made))
        with (
            mariadb_server(directory / "source", server_id=91, environ={**os.environ, **clocks.of_source.environ()}) as source,
            mariadb_server(directory / "target", server_id=92) as target,
            s3_server(directory / "s3") as store, contextlib.closing(Striking(store.port)) as proxy,
            contextlib.closing(Line(source)) as line,
        ):
            os.environ.update(store.environ())
            store.create_bucket(BUCKET)
            bank.create(source, ballast_rows=300)
            soak = Soak(directory / "scene", source, target, store, proxy, line, clocks=clocks)
            soak.begin()
            with forks.Forks(soak.scene.directory, soak.environ()) as at:
                return _play(soak, at, deadline=time.monotonic() + seconds, most_rounds=most_rounds, seed=seed)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _play(soak: Soak, at: forks.Forks, *, deadline: float, most_rounds: int, seed: int) -> dict[str, Any]:
    place = random.Random(-seed)
    for one in rounds(seed):
        if time.monotonic() > deadline or one.number > most_rounds or soak.found.failures:
            break
        with bank.Fire(soak.source, writers=2, pause_s=0.03, reports=False, queries=False, survives=True) as fire:
            soak.play(one, at)
        soak.found.transfers += fire.transfers
        if one.number % RESTORE_EVERY == 0:
            soak.restore(one.number, place)
            print(json.dumps(soak.found.document()), file=sys.stderr, flush=True)
    if not soak.found.failures:
        soak.restore(soak.found.rounds, place)
    return soak.found.document()


def main() -> int:
    seconds, seed = float(os.environ.get("SECONDS") or 7 * 86400), int(os.environ.get("SEED") or 1)
    most_rounds = int(os.environ.get("ROUNDS") or 1000)
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    before = {"made_at": made_at, **machine.commit(), "seed": seed, "machine": machine.facts()}
    began = time.monotonic()
    document = {**before, **run(seconds=seconds, most_rounds=most_rounds, seed=seed), "seconds": round(time.monotonic() - began)}
    print(json.dumps(document, indent=1))
    if document["failures"]:
        print(f"soak: faults FAILED {len(document['failures'])} times", file=sys.stderr)
        return 1
    pages.EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return pages.main()


if __name__ == "__main__":
    sys.exit(main())
