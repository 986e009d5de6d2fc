"""Reports: what `check`, `copy` and `prune` did with this store, left in it, so that status and metrics know it from it alone.

A report says when the verb ran, whether all was well, and how much it looked at; it names no object and nothing of the source.
Reports are numbered and create-only, one log for each verb. One is signed when a signing key is at hand; the machine of a check
may have none, then it is the canonical JSON line alone and whoever reads it is told so. A report says what was done with *this*
store, so a copy has its own ones and those of its origin are not copied.

Limits: whoever may write to the store can leave an unsigned report. A crash leaves a report or none; one that was never left
looks like a verb that did not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.repository import layout, objects
from kpbackup.repository.binding import Repository

FENCE_TRIES = 5


@dataclass(frozen=True)
class Left:
    """A report as it was read; `signed` is False when nobody vouches for it."""

    report: manifest.Report
    signed: bool


@dataclass(frozen=True)
class Latest:
    """The newest report of a verb, and the newest one that says that all was well."""

    newest: Left
    passed: Left | None


def leave(
    repository: Repository, verb: str, *, started_at: datetime, passed: bool, figures: Mapping[str, int]
) -> manifest.Report:
    """Writes the next report of this verb.

    Raises:
        StorageError: the store does not take it. LeaseHeld: others keep taking the next number.
    """
    for _ in range(FENCE_TRIES):
        stored = _keys(repository).get(verb, [])
        seq = layout.seq_of(stored[-1]) + 1 if stored else 1
        head = repository.head("report", key=layout.report(verb, seq), created_at=datetime.now(UTC), seq=seq)
        made = manifest.Report(head, verb, started_at, passed, dict(figures))
        try:
            if repository.signing_key is not None:
                repository.create(made)
            else:
                repository.backend.put_if_absent(head.key, canonical.dumps(codec.encode(made)) + b"\n")
        except errors.ObjectExists:
            continue
        return made
    raise errors.LeaseHeld(f"others keep taking the next number of {layout.reports(verb)}", hint="see who else writes there")


def read_latest(repository: Repository, known: dict[str, Left | None] | None = None) -> dict[str, Latest]:
    """Verb -> its newest reports. One that is damaged, or signed by a key that is not trusted, says nothing.

    Reports never change: what was read is kept in `known`, for whoever reads again and again.

    Raises:
        StorageError.
    """
    known = {} if known is None else known
    found = {}
    for verb, stored in _keys(repository).items():
        readable = (left for key in reversed(stored) if (left := _known(repository, key, known)) is not None)
        newest = next(readable, None)
        if newest is not None:
            passed = newest if newest.report.passed else next((one for one in readable if one.report.passed), None)
            found[verb] = Latest(newest, passed)
    return found


def problems(repository: Repository) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each report that is damaged or lies elsewhere than it was written for."""
    for stored in _keys(repository).values():
        for key in stored:
            try:
                _read(repository, key)
            except (errors.IntegrityError, errors.ObjectMissing) as exc:
                yield key, exc.message
            except errors.KeyProblem:
                continue  # by a signer that is not trusted: it says nothing, as an unsigned one would


def outlived(repository: Repository, before: datetime) -> Iterator[str]:
    """Keys of the reports made before that moment: all but the newest of each verb, and the newest where all was well."""
    latest = read_latest(repository)
    for verb, stored in _keys(repository).items():
        last = latest.get(verb)
        kept = {stored[-1], *([last.passed.report.head.key] if last is not None and last.passed is not None else [])}
        for key in stored:
            if key not in kept and (left := _known(repository, key, {})) is not None and left.report.head.created_at < before:
                yield key


def _keys(repository: Repository) -> dict[str, list[str]]:
    """Verb -> keys of its reports, oldest first."""
    found: dict[str, list[str]] = {}
    for info in repository.backend.list(layout.REPORTS):
        found.setdefault(info.key.split("/")[1], []).append(info.key)
    return found


def _known(repository: Repository, key: str, known: dict[str, Left | None]) -> Left | None:
    if key not in known:
        try:
            known[key] = _read(repository, key)
        except (errors.IntegrityError, errors.KeyProblem, errors.RepositoryError, errors.ObjectMissing):
            known[key] = None  # `check` reports it
    return known[key]


def _read(repository: Repository, key: str) -> Left:
    data = repository.backend.read(key)
    signed = not data.startswith(b"{")
    if signed:
        found = objects.parse(data, key=key, public_keys=repository.public_keys)
        document, rest = found.document, data[found.payload_offset :]
    else:
        line, _, rest = data.partition(b"\n")
        document = canonical.loads(line + b"\n", what=key)
    report = codec.decode(manifest.Report, document, what=key)
    if rest:
        raise errors.IntegrityError(f"{key}: there is more in it than was written")
    if (report.head.key, report.head.repository, layout.reports(report.verb)) != (key, repository.id, key[: -layout.SEQ_DIGITS]):
        raise errors.IntegrityError(f"{key} was moved or copied here")
    return Left(report, signed)
