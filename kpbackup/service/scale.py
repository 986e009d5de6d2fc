"""The drill `scale`: the newest point restored as it is, then at 2 and 4 times its data, and what a straight line says of more.

The newest point is restored onto a scratch server, the tables that grow by themselves are doubled there (`mysql/growing.py`), and
each size is backed up into a repository that lives for the drill and restored from it onto a second scratch server, measured as
any restore. So definitions, indexes and rows are the source's; the store is this machine's disk, and the first size alone comes
from the real one.

Needs room for four times the data, three times over, in drill.directory. A crash leaves that repository's folder, which nobody
can open: its key died with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kpbackup import errors, storage
from kpbackup.backup import full
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import growing, schema, server
from kpbackup.pipeline import encrypt, sign
from kpbackup.plan.timeline import Target
from kpbackup.recovery import drill, scratch
from kpbackup.recovery.scratch_programs import Programs
from kpbackup.recovery.steps import RecoveryRequest
from kpbackup.repository import binding
from kpbackup.repository.binding import Repository

KIND = "scale"
FACTORS = (2, 4)


@dataclass(frozen=True)
class Point:
    """One size and how long its recovery took."""

    factor: int
    rows: int
    row_bytes: int
    measured_rto_s: float


@dataclass(frozen=True)
class Line:
    """`base_s + s_per_byte * row_bytes`, by least squares."""

    base_s: float
    s_per_byte: float

    def at(self, row_bytes: float) -> float:
        return self.base_s + self.s_per_byte * row_bytes

    def reaches(self, seconds: float) -> float | None:
        """The size at which that time is reached; None when it is not, or was before."""
        return (seconds - self.base_s) / self.s_per_byte if self.s_per_byte > 0 and seconds > self.base_s else None


def fit(points: Sequence[Point]) -> Line:
    """The straight line through the points."""
    count = len(points)
    x, y = sum(p.row_bytes for p in points) / count, sum(p.measured_rto_s for p in points) / count
    spread = sum((p.row_bytes - x) ** 2 for p in points)
    slope = sum((p.row_bytes - x) * (p.measured_rto_s - y) for p in points) / spread if spread else 0.0
    return Line(y - slope * x, slope)


def carry_out(
    request: RecoveryRequest, programs: Programs, directory: str, holder: str
) -> tuple[drill.Drilled, tuple[Point, ...]]:
    """Restores all three sizes; the result is recorded as a drill.

    Raises:
        What a drill and a backup raise; StepFailed when no table can grow. It is recorded as a failed drill.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kpbackup-drill-scale-", dir=directory or None) as home,
        scratch.started(programs, directory=directory) as grown,
    ):
        first = drill.carry_out(replace(request, endpoint=grown), {"drill": KIND, "factor": "1"}, clears=False)
        try:
            points = _larger(request, programs, directory, grown, Path(home), holder, first)
        except errors.KpbackupError as exc:
            drill.record_failure(request, exc, {"drill": KIND})
            raise
    told = {f"rto_at_{point.factor}_s": f"{point.measured_rto_s:.3f}" for point in points}
    sizes = {f"row_bytes_at_{point.factor}": str(point.row_bytes) for point in points}
    drill.record_passed(request, first, {"drill": KIND, **told, **sizes})
    return first, points


def _larger(
    request: RecoveryRequest, programs: Programs, directory: str, grown: server.Endpoint, home: Path, holder: str,
    first: drill.Drilled,
) -> tuple[Point, ...]:
    identity = encrypt.Identity.generate()
    repository = binding.create_repository(
        storage.open_backend((home / "repository").as_uri()), signing_key=sign.SigningKey.generate(), source="scale",
        flavour=programs.like.flavour, created_at=datetime.now(UTC),
    )
    back_up = _backing_up(repository, grown, identity, holder, request.workers)
    points = [_point(1, back_up(), first.measured_rto_s)]
    for factor in FACTORS:
        _double(grown)
        made = back_up()
        with scratch.started(programs, directory=directory) as target:
            asked = RecoveryRequest(
                repository, target, Target(latest=True), [identity], workers=request.workers, progress=request.progress
            )
            points.append(_point(factor, made, drill.carry_out(asked, clears=False).measured_rto_s))
    return tuple(points)


def _backing_up(
    repository: Repository, endpoint: server.Endpoint, identity: encrypt.Identity, holder: str, workers: int
) -> Callable[[], BackupSet]:
    wanted = full.FullRequest(endpoint=endpoint, recipients=[identity.recipient], holder=holder, workers=workers)
    return lambda: full.run_full(repository, wanted)


def _double(endpoint: server.Endpoint) -> None:
    with server.connect(endpoint) as connection:
        tables = schema.read_tables(connection, server_facts.read_facts(connection))
    with server.connect(endpoint) as connection:
        if not growing.double(connection, tables):
            raise errors.StepFailed(
                "no table can be made larger: none has an AUTO_INCREMENT as its only unique key, or none at all",
                hint="`kpbackup drill` measures the size that is there",
            )


def _point(factor: int, made: BackupSet, measured_rto_s: float) -> Point:
    return Point(factor, made.totals.rows, made.totals.row_bytes, measured_rto_s)
