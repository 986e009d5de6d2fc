"""Replay over an ordinary connection: rows as BINLOG statements, statements in the session they ran in on the source.

For targets that may not replicate or cannot reach us. Same result as the target's own appliers give, in one of two manners:

- *GTIDs kept*: each transaction commits by itself under its own GTID; the target's GTID state says how far it came.
- *grouped*: several transactions commit together under GTIDs of the target's own, faster; how far it came stands in a table
  of the scratch schema, written in the same transaction.

No round trip is waited for, and still nothing is ever committed behind a failure (`direct_packets`).

A statement that commits by itself (DDL) is waited for. Grouped, its place is written down before, with what it is about: a run
that was killed between the two finds out whether it was executed, or refuses to go on (`direct_intent`). A lock of the session
keeps a run away from a target on which the server is still busy with what a killed one had sent.

Limits: one connection; an event must fit into the target's max_allowed_packet as base64; see `direct_steps` for what is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import direct_intent, direct_marks, direct_rows, direct_session, direct_steps, load, server
from kpbackup.mysql import events as binlog_events
from kpbackup.mysql.direct_intent import Decision
from kpbackup.mysql.direct_packets import PACKET_BYTES, Packets
from kpbackup.mysql.direct_steps import Begin, Description, End, Passed, Rows, Statement
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.replay import OnProgress
from kpbackup.mysql.serve import Progress

GROUP = 20  # 100 were measured no faster, and make a row lock last longer
GROUP_BYTES = PACKET_BYTES * 3 // 4  # of events: as base64 they are a packet
LOCK_WAIT_S = 600  # what a killed run had sent is at most some megabytes
PROGRESS_TABLE = f"{load.SCRATCH_SCHEMA}.replayed"

_LOCK = "kpbackup_replay"


@dataclass(frozen=True)
class Manner:
    """`group`: how many transactions commit together, or with kept GTIDs go into one packet."""

    keeps_gtids: bool
    group: int = GROUP


@contextmanager
def opened(target: server.Endpoint, facts: ServerFacts, manner: Manner) -> Iterator[Applier]:
    """A session that replays; nobody else does so on this target meanwhile.

    Raises:
        StepFailed: another session is still replaying.
        PrivilegeMissing, DatabaseError, ServerUnreachable.
    """
    with server.connect(target) as connection:
        if int(connection.value(f"SELECT GET_LOCK('{_LOCK}', {LOCK_WAIT_S})") or 0) != 1:
            raise errors.StepFailed(
                f"another session is replaying on {target.name}", hint="wait for it, or end it on the target (SHOW PROCESSLIST)"
            )
        yield Applier(connection, facts, manner)


def executed(target: server.Connection, facts: ServerFacts) -> str:
    """The GTIDs that a replay with kept GTIDs has executed."""
    variable = "gtid_binlog_pos" if facts.mariadb else "gtid_executed"
    return "".join(str(target.value(f"SELECT @@GLOBAL.{variable}") or "").split())


def settle_gtids(target: server.Connection, facts: ServerFacts, last: str) -> None:
    """After a replay with kept GTIDs: MariaDB knows them from its binlog alone, and empty transactions (`last` may be one) not
    at all; as a replica it would know them from its position too."""
    if not facts.mariadb:
        return
    state = executed(target, facts)
    if last and not gtid.contains("mariadb", state, last):
        state = gtid.add("mariadb", state, last)
    target.execute("SET GLOBAL gtid_slave_pos=%s", (state,))


class Applier:
    """One session's replay: `begin` once for a whole recovery, `reached` to go on, then `run`."""

    def __init__(self, connection: server.Connection, facts: ServerFacts, manner: Manner) -> None:
        self._connection = connection
        self._manner = manner
        self._mariadb = facts.mariadb
        self._has_gtid_next = not facts.mariadb and facts.gtid_mode != "OFF"
        self._session = direct_session.Session(connection, facts)
        packet = int(connection.value("SELECT @@max_allowed_packet"))
        self._largest_event = (packet - 8192) * 3 // 4
        self._rows = direct_rows.RowPieces(min(GROUP_BYTES, self._largest_event))
        self._opening: Begin | None = None
        self._in_group = self._group_bytes = 0
        self._last: End | None = None
        self._is_alone = False
        self._interrupted: direct_intent.Intent | None = None  # a statement that a killed run may have executed
        self._skips_rows = False  # that follow it, and are there
        self._progress = Progress()
        self._total = 0  # transactions sent, those of an interrupted replay included

    def begin(self, start: Coordinates) -> None:
        """Makes the table of the progress; replay starts at `start`."""
        if self._manner.keeps_gtids:
            return
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {PROGRESS_TABLE} (id TINYINT PRIMARY KEY, file VARBINARY(512) NOT NULL,"
            " position BIGINT UNSIGNED NOT NULL, transactions BIGINT UNSIGNED NOT NULL, intent LONGBLOB NOT NULL)"
            " ENGINE=InnoDB"
        )
        self._connection.execute(
            f"REPLACE INTO {PROGRESS_TABLE} VALUES (1, {_hex(start.file)}, {start.position}, 0, '')"
        )

    def reached(self) -> Coordinates:
        """How far an interrupted grouped replay came, and the transactions it replayed are counted on.

        Raises:
            StepFailed: it was interrupted at a statement of which it cannot be known whether it was executed.
        """
        found = self._connection.row(
            f"SELECT CONVERT(file USING utf8mb4), position, transactions, CONVERT(intent USING utf8mb4) FROM {PROGRESS_TABLE}"
        )
        if found is None:
            raise errors.StepFailed("the progress of the replay is gone from the target", hint="restore again")
        file, position, transactions, intent = found
        if intent:
            self._find_out(str(intent))
        self._total = int(transactions)
        self._progress = Progress(str(file), int(position), self._total, 0)
        return Coordinates(str(file), int(position))

    def _find_out(self, text: str) -> None:
        intent = direct_intent.decode(text)
        if intent is not None and self._decided(intent) is not Decision.UNKNOWN:
            self._interrupted = intent
            return
        what = f"the {intent.verb or 'statement'} behind {intent.place}" if intent is not None else "a statement"
        raise errors.StepFailed(
            f"the replay was interrupted in {what}: whether it was executed cannot be known",
            hint="restore again, with --overwrite for the databases that are there",
        )

    def _decided(self, intent: direct_intent.Intent) -> Decision:
        with server.connect(self._connection.endpoint) as looking:  # this one's session is the statement's
            return direct_intent.decide(intent, direct_marks.marks(looking, intent, direct_marks.names_of(intent.before)))

    def run(
        self, stream: Iterable[binlog_events.StreamEvent], on_progress: OnProgress | None = None, *,
        steps: Callable[[Iterable[binlog_events.StreamEvent]], Iterator[direct_steps.Step]] = direct_steps.steps,
        weigh: Callable[[str, int], int] = lambda file, end: 1,
    ) -> Progress:
        """Executes whole transactions to the end of the stream; what was executed in all. `steps` may be a filter's. `weigh`
        says how many of the source's transactions the one that ends at (file, position) stands for.

        Raises:
            StepFailed: the server refused something, told with its words; or something cannot be done by this path.
            Also what the stream raises, ServerUnreachable.
        """
        self._weigh = weigh
        self._session.prepare()
        self._packets = Packets(
            self._connection, compound=self._mariadb, timeout_s=direct_session.TIMEOUT_S, on_end=self._note,
            on_failure=self._stopped,
        )
        for step in steps(stream):
            if isinstance(step, Rows):
                self._add_rows(step)
            elif isinstance(step, Begin):
                self._opening = step
            elif isinstance(step, End | Passed):
                if isinstance(step, End):
                    self._end(step)
                else:
                    self._pass(step)
                if on_progress is not None:
                    on_progress(self._progress)
            elif isinstance(step, Statement):
                self._statement(step)
            else:
                self._describe(step)
        self._commit()
        self._packets.drain()
        if self._has_gtid_next:
            self._packets.do(b"SET gtid_next='AUTOMATIC'")
        return self._progress

    # --- one step each

    def _describe(self, step: Description) -> None:
        """Between transactions; on MySQL it spoils gtid_next."""
        self._commit()
        self._packets.drain()
        around = [b"SET gtid_next='AUTOMATIC'"] if self._has_gtid_next else []
        self._packets.do(b"COMMIT", *around, direct_rows.binlog([step.data]), *around)

    def _add_rows(self, step: Rows) -> None:
        if self._skips_rows:
            return
        if len(step.data) > self._largest_event:
            name = self._connection.endpoint.name
            raise errors.StepFailed(
                f"an event of {len(step.data)} bytes does not fit into the max_allowed_packet of {name}",
                hint="raise max_allowed_packet on the target (1073741824 is the most), or set recovery.replay.path to served",
            )
        self._open()
        self._group_bytes += len(step.data)
        for piece in self._rows.add(step):
            self._packets.add(direct_rows.binlog(piece))

    def _open(self) -> None:
        """The begin of a transaction that was held back until it was known to be an ordinary one."""
        begin, self._opening = self._opening, None
        if begin is None or not self._manner.keeps_gtids:
            return
        self._packets.add(*self._session.identity(begin))
        if not self._mariadb:  # there autocommit=0 is enough
            self._packets.add(b"BEGIN")

    def _statement(self, step: Statement) -> None:
        """Waited for: what it needs of the session is set and put back around it."""
        if not step.alone:
            self._open()
            self._flush_rows()
            self._packets.drain()
            self._packets.do(*self._session.context(step), step.query.text, *self._session.plain())
            return
        begin, self._opening = self._opening, None
        self._commit()
        self._packets.drain()
        self._be_alone(True)
        do = self._packets.do
        text = self._still_to_do(step)
        if not text:
            return
        if not self._manner.keeps_gtids:
            do(f"UPDATE {PROGRESS_TABLE} SET intent={_hex(self._intent(step).encode())}".encode(), b"COMMIT")
        identity = self._session.identity(begin) if self._manner.keeps_gtids and begin else ()
        context = self._session.context(step)
        if not step.in_block:
            do(b"SET autocommit=1", *context, *identity, text)
        elif self._mariadb and self._manner.keeps_gtids:  # its GTID is for the rows that follow
            do(*context, b"SET sql_log_bin=0", text, b"SET sql_log_bin=1", *identity)
        else:
            do(*context, *identity, text)

    def _still_to_do(self, step: Statement) -> bytes:
        """The statement, or what a killed run has left of it, which can be of the first one alone. Judged now: an account that
        is to be replaced was dropped just before."""
        intent, self._interrupted = self._interrupted, None
        decision = self._decided(intent) if intent is not None else Decision.AGAIN
        if intent is None or decision is Decision.AGAIN:
            return step.query.text
        if intent.digest != direct_intent.digest(step.query) or decision is Decision.UNKNOWN:
            raise errors.InternalError("the statement that was interrupted is not the next one of the archive")
        if decision is Decision.PARTLY:
            return direct_intent.rest(intent, direct_marks.names_of(intent.before), step.query)
        self._skips_rows = decision is Decision.WHOLE
        return b""

    def _intent(self, step: Statement) -> direct_intent.Intent:
        where = self._last or End(self._progress.file, self._progress.position, "")
        place = f"{where.file}:{where.position}"
        intent, names = direct_intent.read(step.query, place=place, has_rows=step.in_block, mariadb=self._mariadb)
        with server.connect(self._connection.endpoint) as looking:
            before = direct_marks.marks(looking, intent, names)
            return replace(intent, before=before, at=direct_marks.moment(looking))

    def _be_alone(self, is_alone: bool) -> None:
        """The session is a statement's own: its SQL mode may have another grammar, and MySQL takes nothing but row events
        and COMMIT behind a CREATE TABLE ... SELECT."""
        self._is_alone = self._packets.is_bare = is_alone

    def _end(self, step: End) -> None:
        if not self._is_alone:
            self._open()
        self._last = step
        self._in_group += 1
        transactions = self._weigh(step.file, step.position)
        self._total += transactions
        if self._is_alone:
            self._end_alone(step)
            return
        if self._manner.keeps_gtids:
            self._flush_rows()
            self._packets.add(b"COMMIT")
            self._packets.mark(step, transactions)
        if self._in_group >= self._manner.group or self._group_bytes > GROUP_BYTES:
            self._commit()

    def _pass(self, step: Passed) -> None:
        """Nothing of the transactions up to here is executed, and a replay that goes on begins behind them."""
        self._commit()
        self._packets.drain()
        if not self._manner.keeps_gtids:
            self._packets.do(self._progress_update(step.end), b"COMMIT")
        self._last = step.end
        self._note(step.end, 0)

    def _end_alone(self, step: End) -> None:
        self._flush_rows()
        self._packets.add(b"COMMIT")
        self._packets.drain()
        if not self._manner.keeps_gtids:
            self._packets.do(*self._session.plain(), self._progress_update(step), b"COMMIT")
        self._packets.do(*self._session.plain(), b"SET autocommit=0")
        self._be_alone(False)
        self._skips_rows = False
        self._note(step, self._in_group)
        self._in_group = self._group_bytes = 0

    # --- groups

    def _commit(self) -> None:
        """Ends the group that is open, if one is: nothing of another transaction may have been added to it."""
        end, count = self._last, self._in_group
        if not count or end is None:
            return
        if not self._manner.keeps_gtids:
            self._flush_rows()
            self._packets.add(self._progress_update(end), b"COMMIT")
            self._packets.mark(end, count)
        self._packets.send()
        self._in_group = self._group_bytes = 0

    def _progress_update(self, end: End) -> bytes:
        return (
            f"UPDATE {PROGRESS_TABLE} SET file={_hex(end.file)},position={end.position},transactions={self._total},intent=''"
        ).encode()

    def _flush_rows(self) -> None:
        for piece in self._rows.flush():
            self._packets.add(direct_rows.binlog(piece))

    def _stopped(self, exc: errors.KpbackupError) -> errors.KpbackupError:
        behind = f"{self._progress.file}:{self._progress.position}" if self._progress.file else "its start"
        return errors.StepFailed(
            f"replay on {self._connection.endpoint.name} stopped behind {behind}: {exc.message}",
            hint="does the target hold exactly the backup set's data? restore again into an empty target",
        )

    def _note(self, end: End, transactions: int) -> None:
        now = self._progress
        more = end.position - (now.position if now.file == end.file else 0)
        self._progress = Progress(end.file, end.position, now.transactions + transactions, now.sent_bytes + more)


def _hex(text: str) -> str:
    return f"X'{text.encode('utf-8', 'surrogateescape').hex()}'"
