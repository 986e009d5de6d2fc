"""The story: backups while the application writes, an accident, the end of the source, two recoveries, and their judges."""

from __future__ import annotations

import json
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from demo import accident, data, evidence, follower, journey, leaks, objects, stage, truth, writer
from demo.narrator import Answer, DemoFailed, Narrator
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.kubepolaris import deployed

LONGEST_LOSS_S = 15.0  # the archive's interval is 3 s, and the machine may be busy
_RUN = re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{6}\b")
_APPLICATION_WRITES = ("users", "operation_logs")
_SECOND_TIER = ("operation_logs", "audit_logs", "terminal_sessions", "terminal_commands")  # of the profile
ACCOUNTS = (*objects.PLANTED_ACCOUNTS, stage.BACKUP_ACCOUNT)


class Story:
    """One telling. `set_up()` first, then `tell()`; the writer must be ended by `close()`, whatever happens."""

    def __init__(self, played: stage.Stage, narrator: Narrator, size: str) -> None:
        self._stage = played
        self._voice = narrator
        self._size = size
        self._writer = writer.Writer(played.source.port, per_second=max(25.0, data.SIZES[size].users))
        self._truth: truth.Truth = {}
        self._accident: accident.Accident | None = None
        self._listen_port = ports.free_port()
        self._follower = follower.Follower(narrator, played.backup, port=self._listen_port)
        self._summary: list[tuple[str, str]] = []
        self._figures: dict[str, Any] = {"hour_of_writes": data.SIZES[size].hour_of_writes}

    def close(self) -> None:
        self._writer.abandon()
        self._follower.kill()

    def set_up(self) -> None:
        """Loads the database and creates the account kpbackup will use."""
        with stage.root(self._stage.source) as connection:
            data.load(connection, data.SIZES[self._size])
            objects.create(connection)
            stage.create_backup_account(connection, self._stage.backup)
            deployed.add_user(connection)
        self._stage.clusters.deploy(self._stage.source)

    def tell(self) -> None:
        """Raises DemoFailed as soon as something is not as it must be."""
        started = time.monotonic()
        self._beginning()
        self._full()
        self._follow()
        self._hit()
        self._end_of_source()
        self._recover_by_time()
        self._recover_by_gtid()
        self._refusal()
        self._search()
        self._end(time.monotonic() - started)
        if self._size not in evidence.WITHOUT:
            server, store = self._stage.source.version, self._stage.store.version
            self._voice.say(f"Figures: {evidence.write(self._size, self._figures, server=server, store=store)}")

    def _beginning(self) -> None:
        self._voice.chapter("A source to protect")
        with stage.root(self._stage.source) as connection, connection.cursor() as cursor:
            query = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = %s"
            cursor.execute(query, (data.DATABASE,))
            (size_bytes,) = cursor.fetchone() or (0,)
        self._figures["database_bytes"] = int(size_bytes)
        self._voice.say(
            f"MariaDB {self._stage.source.version} with a KubePolaris database of {int(size_bytes) / 1e6:.0f} MB, full of fake"
            " credentials. The application begins to write now and will not stop. kpbackup logs in with an account that may read"
            " and replicate, no more."
        )
        self._voice.show(stage.GRANT)
        self._writer.start()
        self._writer.wait_for(5)
        self._stage.write_backup_settings(listen_port=self._listen_port)
        self._voice.kpbackup(self._stage.backup, "init", "--keys", "keys")
        self._stage.take_identity_away()
        self._voice.say("As told, the private identity leaves this machine now: backups are made without it.")
        if re.search(r"^ +doctor ", self._voice.verbs(self._stage.backup), re.MULTILINE):
            self._voice.kpbackup(self._stage.backup, "doctor")

    def _full(self) -> None:
        self._voice.chapter("A full backup while the application writes")
        before = self._writer.transactions
        answer = self._voice.kpbackup(self._stage.backup, "backup", "full")
        self._writer.check()
        written = self._writer.transactions - before
        self._voice.say(f"{answer.seconds:.1f} s; the application committed {written} transactions meanwhile.")
        self._note("full backup", f"{answer.seconds:.1f} s")
        self._figures["full_backup_seconds"] = round(answer.seconds, 3)

    def _follow(self) -> None:
        self._voice.chapter("The daemon follows, seconds behind")
        self._follower.start()
        self._writer.wait_for(data.SIZES[self._size].hour_of_writes)
        asked = follower.now()
        self._follower.wait(lambda: self._follower.has_archived(asked), "as far as the application had written")
        point = self._follower.recovery_point()
        behind = (follower.now() - point).total_seconds()
        self._voice.say(
            "From here on it archives by itself: a sealed, signed segment of the binlog every three seconds, over one replication"
            f" connection. What the application wrote {behind:.1f} s ago can be restored from the bucket; on an hourly schedule"
            " that would be up to an hour."
        )
        self._voice.kpbackup(self._stage.backup, "list")

    def _hit(self) -> None:
        self._voice.chapter("The accident")
        self._writer.wait_for(25)
        self._writer.pause()
        try:
            self._truth = self._read(self._stage.source, "truth.sql")
            with stage.root(self._stage.source) as connection:
                self._accident = accident.delete_cluster(connection, name=data.VICTIM)
        finally:
            self._writer.resume()
        if self._truth[f"{data.DATABASE}.clusters rows"] == "0" or self._accident.rows < 10:
            raise DemoFailed("the accident hit nothing")
        self._voice.say(
            f"Somebody deletes the cluster {data.VICTIM} and all that hangs on it: {self._accident.rows:,} rows deleted or"
            f" changed in one transaction, {self._accident.gtid}. The application writes on. The instant before, the demo"
            f" recorded the truth with its own SQL: {len(self._truth)} facts about {truth.rows_in(self._truth):,} rows."
        )
        self._writer.wait_for(25)
        happened = follower.now()
        self._follower.wait(lambda: self._follower.has_archived(happened), "past the accident")

    def _end_of_source(self) -> None:
        self._voice.chapter("The source dies, and the cluster with it")
        self._writer.wait_for(25)
        self._stage.clusters.lose_origin()
        self._stage.source.kill()
        died = follower.now()
        self._writer.wait_end()
        self._follower.wait(self._follower.has_lost_source, "to miss the source")
        self._follower.end()  # in order: what it had received is in the bucket
        point = self._follower.recovery_point()
        lost = (died - point).total_seconds()
        if not 0 <= lost <= LONGEST_LOSS_S:
            raise DemoFailed(f"the last recovery point {point} makes no sense at {died}")
        self._voice.say(
            f"kill -9, in the middle of its work. The newest recovery point is {lost:.1f} s old: that is the achieved RPO"
            " (MariaDB stamps whole seconds). From here on only the bucket is left."
        )
        self._note("achieved RPO", f"{lost:.1f} s (promised: 1 h)")

    def _recover_by_time(self) -> None:
        self._voice.chapter("All five steps, into an empty cluster, on a machine that never saw the source")
        target = self._stage.fresh_target(with_application=True)
        self._voice.say(
            "All it knows: the repository, the identity, whose signatures to believe, an empty server and an empty cluster (an"
            " API server made for tests: no real one can run here; the Helm engine, the database and what answers HTTP are real)."
        )
        self._voice.show(self._stage.recovery.file("kpbackup.yaml").read_text())
        moment = self._happened().moment_before.strftime("%Y-%m-%dT%H:%M:%SZ")
        public = self._stage.clusters.public
        assert public is not None
        user = journey.Waiting(public.url)
        try:
            answer = self._voice.kpbackup(self._stage.recovery, "restore", "--to", moment, "--yes")
        finally:
            user.end()
        self._users_are_served(user)
        self._judge(target, answer, "of all five steps", but=_APPLICATION_WRITES, after=_SECOND_TIER)
        self._evidence()

    def _users_are_served(self, user: journey.Waiting) -> None:
        """A user came by the public address, and comes again now that everything is back."""
        public = self._stage.clusters.public
        assert public is not None
        rows = self._truth[f"{data.DATABASE}.clusters rows"]
        for clusters in (user.seen, journey.clusters_seen(public.url)):
            if data.VICTIM not in clusters or len(clusters) != int(rows):
                raise DemoFailed(f"a user who logs in through {public.url} sees {clusters}, and {rows} clusters should be there")
        self._figures["served_after_s"] = round(user.seconds or 0.0, 3)
        self._voice.say(
            f"A user who tried again and again was logged in through the public address {user.seconds:.1f} s after the command"
            f" was given, and saw {len(user.seen)} clusters, {data.VICTIM} among them: the application runs from the backed up"
            " chart and image, with the passwords it had. The logs came back behind it, into the tables that it writes to."
        )

    def _evidence(self) -> None:
        """The journal of the newest recovery: what remains of it."""
        listed = self._voice.kpbackup(self._stage.recovery, "recoveries")
        runs = _RUN.findall(listed.output)
        if not runs:
            raise DemoFailed("the recovery is not listed")
        entries = json.loads(self._voice.quietly(self._stage.recovery, "--json", "recoveries", runs[-1]))["entries"]
        self._figures |= evidence.times(entries)
        essential, whole = self._figures["essential_rto_s"], self._figures["rto_s"]
        self._note("essential tables back", f"{essential:.1f} s, everything after {whole:.1f} s")

    def _recover_by_gtid(self) -> None:
        self._voice.chapter("The same by transaction, into another empty server")
        target = self._stage.fresh_target()
        gtid = self._happened().gtid
        answer = self._voice.kpbackup(self._stage.recovery, "restore", "database", "--before-gtid", gtid, "--yes")
        self._judge(target, answer, "by GTID")

    def _judge(
        self, target: Server, answer: Answer, how: str, *, but: tuple[str, ...] = (), after: tuple[str, ...] = ()
    ) -> None:
        """Compares with the truth; `but` names tables whose rows the application itself has written to since, `after` those
        that came back behind it, whose next numbers lie above all that came."""
        there = self._read(target, "found.sql")
        counters = [f"{data.DATABASE}.{table} next AUTO_INCREMENT" for table in after]
        if any(int(there[name]) <= int(self._truth[name]) for name in counters):
            raise DemoFailed(f"the application may give numbers that came back: {counters}")
        found, expected = (_without(facts, but, counters) for facts in (there, self._truth))
        lines = truth.differences(expected, found)
        dumps = self._dumps()
        if dumps[0].exists() and not but:
            text = truth.first_difference(*dumps)
            lines += [text] if text else []
        if lines:
            self._voice.show("\n".join(lines))
            raise DemoFailed(f"the database restored {how} differs from the truth in {len(lines)} facts")
        dumped = dumps[0].exists() and not but
        more = f" and the text of mariadb-dump ({dumps[0].stat().st_size / 1e6:.0f} MB)" if dumped else ""
        more += f" (but for {' and '.join(but)}, to which its login wrote)" if but else ""
        self._voice.say(f"Compared with the truth: all {len(found)} facts{more} agree. Measured RTO: {answer.seconds:.1f} s.")
        self._figures[f"facts_compared_{how.replace(' ', '_')}"] = len(found)
        self._note(f"measured RTO {how}", f"{answer.seconds:.1f} s (promised: 30 min)")

    def _refusal(self) -> None:
        self._voice.chapter("A moment that cannot be had")
        early = datetime.now(UTC) - timedelta(days=1)
        self._voice.kpbackup(
            self._stage.recovery, "restore", "database", "--to", early.strftime("%Y-%m-%dT%H:%MZ"), "--dry-run", expect=22
        )
        self._voice.say("Refused with exit code 22; nothing was touched.")

    def _search(self) -> None:
        self._voice.chapter("What a thief of the bucket reads")
        client = self._stage.store.client()
        try:
            forms = leaks.prove_search(client, stage.BUCKET)
            searched, found = leaks.in_bucket(client, stage.BUCKET)
        finally:
            client.close()
        found += [f"kpbackup's output: {form}" for form in leaks.forms_found(self._voice.transcript.encode())]
        if found:
            self._voice.show("\n".join(found))
            raise DemoFailed(f"{len(found)} secrets are readable")
        if not searched.sealed:
            raise DemoFailed("the bucket holds no sealed object")
        self._voice.say(
            f"{searched.objects} objects, {searched.stored_bytes / 1e6:.1f} MB, {searched.sealed} of them sealed. None of the"
            " planted secrets is in any of them, in their keys, or in what kpbackup printed; the search knows"
            f" {forms} forms of writing and was first seen to find each."
        )
        self._note("in the bucket", f"{searched.stored_bytes / 1e6:.1f} MB in {searched.objects} objects")

    def _end(self, seconds: float) -> None:
        self._voice.chapter("The end")
        self._note("this story", f"{seconds:.0f} s")
        width = max(len(label) for label, _ in self._summary)
        self._voice.show("\n".join(f"{label:<{width}}  {value}" for label, value in self._summary))

    def _note(self, label: str, value: str) -> None:
        self._summary.append((label, value))

    def _read(self, server: Server, dump_name: str) -> truth.Truth:
        with stage.root(server) as connection:
            facts = truth.read(connection, accounts=ACCOUNTS)
        program = shutil.which("mariadb-dump")
        if program is not None and self._size in ("tiny", "small"):
            truth.dump(program, server.socket, data.DATABASE, self._stage.directory / dump_name)
        return facts

    def _dumps(self) -> tuple[Path, Path]:
        return self._stage.directory / "truth.sql", self._stage.directory / "found.sql"

    def _happened(self) -> accident.Accident:
        if self._accident is None:
            raise DemoFailed("no accident has happened yet")
        return self._accident


def _without(facts: truth.Truth, tables: tuple[str, ...], names: list[str]) -> truth.Truth:
    left_out = (*(f"{data.DATABASE}.{table}{end}" for table in tables for end in (" ", ".")), *names)
    return {name: value for name, value in facts.items() if not name.startswith(left_out)}
