"""What daemon and exporter know: the repository read again every 15 s, the source probed every 10 s, each in its own thread.

A store that is away leaves the last truth standing and says so; a source that is away is seen by the next probe. Nothing here
is kept: after a restart the same numbers come from the same repository.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kpbackup import config, errors, logs
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import server
from kpbackup.service import certificates, copies, reading, trust

if TYPE_CHECKING:
    from kpbackup.mysql.server import Endpoint
    from kpbackup.repository.binding import Repository
    from kpbackup.service.status import Status

REFRESH_S = 15.0  # a scrape interval: more often only costs requests
COPIES_S = 60.0  # copies are brought up every hour or so; each reading costs requests to another store
CERTIFICATES_S = 3600.0  # they change a few times a year
PROBE_S = 10.0  # how late a source that went away is noticed
PROBE_TIMEOUT_S = 10.0
END_TIMEOUT_S = 2.0  # a reading that hangs in the network is left behind

logger = logging.getLogger(__name__)


class Task:
    """A function called again and again in a thread, at most `every_s` apart, at once when woken.

    It must not raise. If it does, the thread ends, `defect` says why, and the supervising loop ends the process.
    """

    def __init__(self, name: str, step: Callable[[], None], *, every_s: float) -> None:
        self.name = name
        self.defect: Exception | None = None
        self._step, self._every_s = step, every_s
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Lets the next step begin now."""
        self._wake.set()

    def end(self) -> None:
        """Asks it to end; a step under way is not waited for."""
        self._end.set()
        self._wake.set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Waits for its end; False when it did not end in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self._wake.clear()
                self._step()
                self._wake.wait(self._every_s)
        except Exception as exc:  # the task guard: handed to the supervising loop
            self.defect = exc


@dataclass(frozen=True)
class StoreView:
    """The last state that could be read (None: never yet), and whether the last try succeeded, else why not."""

    state: reading.State | None = None
    up: bool = False
    problem: str = "the repository was not read yet"


@dataclass(frozen=True)
class SourceView:
    """What the last probe found. `up` is None before it, or without a source; `clock_skew` is source minus ours;
    `certificate` is when its certificate expires, None where connections are not encrypted."""

    up: bool | None = None
    clock_skew: timedelta | None = None
    problem: str = ""
    certificate: datetime | None = None


class RepositoryWatch:
    """Keeps `view` at most 15 s old while the store answers."""

    def __init__(self, reader: reading.Reader) -> None:
        self._reader = reader
        self.view = StoreView()
        self.task = Task("repository", self._refresh, every_s=REFRESH_S)

    def _refresh(self) -> None:
        before = self.view
        try:
            state = self._reader.read()
            _ = state.continuity  # found here, so that no request waits for it
            self.view = StoreView(state, True, "")
        except errors.KpbackupError as exc:
            self.view = StoreView(before.state, False, exc.message)
            if before.up or before.state is None:
                logs.event(logger, "store_lost", level=logging.ERROR, error=exc, hint=exc.hint)
            return
        if self.view.state is not None and self.view.state.regressed and not (before.state and before.state.regressed):
            logs.event(logger, "store_regressed", level=logging.ERROR, missing=self.view.state.regressed)
        if before.state is not None and not before.up:
            logs.event(logger, "store_found_again")


class SourceWatch:
    """Keeps `view` of a source; without an endpoint it stays unknown.

    `turn` is held by whoever uses the one connection that a full backup, and the stream of a continuous archive, leave to
    others (`source.max_connections`). While the archiver has it there is no probe: the pass itself tells when the source is
    gone.
    """

    def __init__(self, endpoint: Endpoint | None) -> None:
        self.turn = threading.Lock()
        self._endpoint = endpoint
        self.view = SourceView()
        self.task = Task("source", self._probe, every_s=PROBE_S)

    @property
    def is_configured(self) -> bool:
        return self._endpoint is not None

    def _probe(self) -> None:
        if self._endpoint is None or not self.turn.acquire(blocking=False):
            return
        try:
            self._ask(self._endpoint)
        finally:
            self.turn.release()

    def _ask(self, endpoint: Endpoint) -> None:
        before = self.view
        try:
            skew, expires = _asked(endpoint)
            self.view = SourceView(True, skew, certificate=expires)
        except errors.KpbackupError as exc:
            self.view = SourceView(False, None, exc.message, before.certificate)
            if before.up is not False:
                logs.event(logger, "source_lost", level=logging.ERROR, error=exc, hint=exc.hint)
            return
        if before.up is False:
            logs.event(logger, "source_found_again")


def clock_skew(endpoint: Endpoint) -> timedelta:
    """The source's clock minus this machine's, to within half of the round trip.

    Raises:
        ServerUnreachable: no answer.
    """
    return _asked(endpoint)[0]


def _asked(endpoint: Endpoint) -> tuple[timedelta, datetime | None]:
    """(clock skew, when the server's certificate expires)."""
    with server.connect(endpoint, read_timeout_s=PROBE_TIMEOUT_S) as connection:
        asked = datetime.now(UTC)
        there = server_facts.clock(connection)
        answered = datetime.now(UTC)
        expires = connection.certificate_expiry()
    return there - (asked + (answered - asked) / 2), expires


class CopiesWatch:
    """Keeps `view` of the second copies: a slow or absent one holds nobody else up."""

    def __init__(self, reader: copies.Reader) -> None:
        self._reader = reader
        self.view: tuple[trust.Copy, ...] = ()
        self.task = Task("copies", self._refresh, every_s=COPIES_S)

    def _refresh(self) -> None:
        before = {one.name: one.problem for one in self.view}
        self.view = self._reader.read()
        for one in self.view:
            if one.problem and not before.get(one.name):
                logs.event(logger, "copy_lost", level=logging.WARNING, copy=one.name, problem=one.problem)
            elif before.get(one.name) and not one.problem:
                logs.event(logger, "copy_found_again", copy=one.name)


class CertificatesWatch:
    """Keeps `view` of when certificates expire, by endpoint."""

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings
        self.view: dict[str, datetime] = {}
        self.task = Task("certificates", self._refresh, every_s=CERTIFICATES_S)

    def _refresh(self) -> None:
        self.view = certificates.read(self._settings)


class Watch:
    """All views together, and the status they give."""

    def __init__(self, settings: config.Settings, repository: Repository, endpoint: Endpoint | None) -> None:
        self._settings = settings
        self.zone = settings.zone
        self.source_label = repository.binding.source
        self.repository, self.source = RepositoryWatch(reading.reader(settings, repository)), SourceWatch(endpoint)
        self.copies = CopiesWatch(copies.Reader(settings, repository))
        self.certificates = CertificatesWatch(settings)
        own = (self.copies.task,) if settings.copies else ()
        self.tasks = (self.repository.task, self.source.task, self.certificates.task, *own)

    def start(self) -> None:
        for task in self.tasks:
            task.start()

    def end(self) -> None:
        for task in self.tasks:
            task.end()

    def has_ended(self) -> bool:
        """Whether all threads are gone, waiting END_TIMEOUT_S for each."""
        return all([task.join(END_TIMEOUT_S) for task in self.tasks])

    def check(self) -> None:
        """Raises InternalError when a thread of the watch has died."""
        for task in self.tasks:
            if not task.is_alive:
                raise errors.InternalError(
                    f"the task {task.name!r} ended: {type(task.defect).__name__}: {task.defect}",
                    hint="this is a defect of kpbackup: please report it",
                ) from task.defect

    def status(self, now: datetime) -> Status | None:
        """The status at `now` from the last reading; None before the first."""
        view = self.repository.view
        if view.state is None:
            return None
        source = self.source.view
        expiries = dict(self.certificates.view) | ({"source": source.certificate} if source.certificate else {})
        return reading.assess(
            self._settings,
            view.state,
            now=now,
            clock_skew=source.clock_skew,
            copies=self.copies.view,
            certificates=expiries,
        )
