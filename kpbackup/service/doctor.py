"""Whether backups can work from here: each finding says what was found, why it matters and how to mend it.

Every examination stands alone, so that one failure hides no other: an unreachable source still lets the keys be judged. What is
written: two probe objects (see storage/probe), and only where a signing key says that this machine writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kpbackup import config, errors, quantities
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import preflight, privileges, server
from kpbackup.mysql.findings import Finding, Severity
from kpbackup.pipeline import sign
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys
from kpbackup.service import opening, reading, watching
from kpbackup.storage import probe

if TYPE_CHECKING:
    from kpbackup.model.catalog import Catalog
    from kpbackup.repository.binding import Repository

SKEW_LIMIT = timedelta(seconds=5)  # times in status and schedules are off by as much


@dataclass(frozen=True)
class Examined:
    """One finding and what it is about: source, schedule, store, repository, keys or clock."""

    area: str
    finding: Finding


def examine(settings: config.Settings) -> list[Examined]:
    """All findings; it raises nothing of KpbackupError."""
    found = [Examined("source", finding) for finding in _source(settings)]
    found += [Examined("clock", finding) for finding in _clock(settings)]
    found += [Examined("schedule", finding) for finding in _schedule(settings)]
    found += [Examined("store", finding) for finding in _store(settings)]
    repository, catalog, findings = _repository(settings)
    found += [Examined("repository", finding) for finding in findings]
    found += [Examined("keys", finding) for finding in _keys(settings, repository, catalog)]
    return found


def _failed(exc: errors.KpbackupError, why: str, *, severity: Severity = "error") -> Finding:
    return Finding(severity, exc.message, why, exc.hint)


def _source(settings: config.Settings) -> Iterator[Finding]:
    if settings.source is None:
        yield Finding(
            "warning",
            "no source is configured",
            "this machine can restore, but not make backups",
            "set source.host and source.user",
        )
        return
    try:
        with server.connect(opening.source_endpoint(settings), read_timeout_s=watching.PROBE_TIMEOUT_S) as connection:
            facts = server_facts.read_facts(connection)
            rights = privileges.read_privileges(connection)
    except errors.KpbackupError as exc:
        yield _failed(exc, "without the source no backup can be made")
        return
    yield Finding("ok", f"{settings.source.label} answers as {rights.account}")
    interval = reading.timings(settings)["incremental"].period(datetime.now(UTC))
    yield from preflight.source_findings(
        facts, rights, databases=settings.source.databases, schedule_interval_s=int(interval.total_seconds())
    )


def _clock(settings: config.Settings) -> Iterator[Finding]:
    if settings.source is None:
        return
    try:
        skew = watching.clock_skew(opening.source_endpoint(settings))
    except errors.KpbackupError:
        return  # said under "source"
    told = quantities.format_duration(abs(skew))
    if abs(skew) > SKEW_LIMIT:
        ahead = "ahead of" if skew > timedelta() else "behind"
        yield Finding(
            "warning",
            f"the source's clock is {told} {ahead} this machine's",
            "recovery points are told by the source's clock, schedules run by this one's",
            "run NTP on both",
        )
    else:
        yield Finding("ok", f"the source's clock and this one agree to {told}")


def _schedule(settings: config.Settings) -> Iterator[Finding]:
    timing, promised = reading.timings(settings)["incremental"], settings.objectives.rpo
    if timing.cron is None and timing.every is None:
        yield Finding(
            "warning", "schedule.incremental is off", "a daemon here archives no binlog", "set it, or archive.continuous"
        )
        return
    interval = timing.period(datetime.now(UTC))
    every = quantities.format_duration(interval)
    runs = f"the binlog is archived every {every}, the promised RPO is {quantities.format_duration(promised)}"
    if interval >= promised:
        yield Finding(
            "warning",
            runs,
            "just before each run, and while it runs, the achieved RPO is over the promise",
            "set schedule.incremental to twice as often, or archive.continuous: true, or a longer objectives.rpo",
        )
    else:
        yield Finding("ok", runs)


def _store(settings: config.Settings) -> Iterator[Finding]:
    try:
        store = opening.backend(settings)
        if not settings.signing.key_file:
            yield Finding("ok", f"{store.name} is not probed: without signing.key_file this machine only reads")
            return
        found = probe.probe(store)
    except errors.KpbackupError as exc:
        yield _failed(exc, "backups cannot be stored")
        return
    if not (found.conditional_put and found.conditional_replace):
        lacking = "If-None-Match" if not found.conditional_put else "If-Match"
        yield Finding(
            "error",
            f"{store.name} does not keep conditional writes ({lacking})",
            "two writers could overwrite each other",
            "use a store with If-None-Match and If-Match, or a file:// directory",
        )
        return
    checksums = (
        "it refuses bytes with a wrong checksum"
        if found.checksums
        else "it keeps no checksums; what it returns is compared with ours"
    )
    yield Finding("ok", f"{store.name} can be written to and keeps conditional writes; {checksums}")


def _repository(settings: config.Settings) -> tuple[Repository | None, Catalog | None, list[Finding]]:
    try:
        repository = opening.reading_repository(settings)
        catalog = catalogs.read_catalog(repository)
    except errors.KpbackupError as exc:
        return None, None, [_failed(exc, "nothing can be backed up into it or restored from it")]
    sets = sum(len(history.sets) for history in catalog.histories)
    told = f"repository {repository.id} of source {repository.binding.source}: {quantities.count(sets, 'set')}"
    found = [Finding("ok", f"{told}, its manifests verify")]
    if catalog.damaged:
        found = [
            Finding(
                "error",
                f"{len(catalog.damaged)} manifests of repository {repository.id} are damaged",
                "what they give cannot be restored, and nothing is pruned",
                "run `kpbackup check`; restore them from another copy",
            )
        ]
    return repository, catalog, found


def _keys(settings: config.Settings, repository: Repository | None, catalog: Catalog | None) -> Iterator[Finding]:
    yield from _recipients(settings)
    yield from _signing(settings)
    yield from _identity(settings, repository, catalog)
    for key, path in settings.exposed_files():
        yield Finding(
            "warning",
            f"every user of this machine may read {path} ({key})",
            "whoever reads it has the secret",
            f"chmod o-r {path}",
        )


def _recipients(settings: config.Settings) -> Iterator[Finding]:
    if settings.source is None:
        return
    try:
        found = opening.recipients(settings)
    except errors.KpbackupError as exc:
        yield _failed(exc, "backups are sealed to recipients, and never stored open")
        return
    if len(found) == 1:
        yield Finding(
            "warning",
            "backups are sealed to one recipient alone",
            "with its identity lost, all backups are lost",
            "add the recipient of a second identity that is kept elsewhere (age-keygen makes one)",
        )
    else:
        yield Finding("ok", f"backups are sealed to {len(found)} recipients")


def _signing(settings: config.Settings) -> Iterator[Finding]:
    if settings.signing.key_file is None:
        if settings.source is not None:
            yield Finding(
                "error",
                "signing.key_file is not set",
                "a machine that makes backups signs them",
                "name the signing key that `kpbackup init` made",
            )
        return
    try:
        own = opening.signing_key(settings).public_key
        trusted = [sign.PublicKey.parse(text) for text in settings.need_public_keys()]
    except errors.KpbackupError as exc:
        yield _failed(exc, "what is written here must be signed, and believed elsewhere")
        return
    if str(own) in {str(key) for key in trusted}:
        yield Finding("ok", "the signing key's public key is among signing.public_keys")
    else:
        yield Finding(
            "error",
            f"the public key of signing.key_file, {own}, is not among signing.public_keys",
            "machines with these settings refuse what is signed here",
            f"add it, or name the key that belongs to them: {own}",
        )


def _identity(settings: config.Settings, repository: Repository | None, catalog: Catalog | None) -> Iterator[Finding]:
    if not settings.encryption.opens:
        yield Finding("ok", "no identity on this machine: it can make backups, and cannot open them")
        return
    try:
        identities = opening.identities(settings)
    except errors.KpbackupError as exc:
        yield _failed(exc, "restoring needs it")
        return
    if settings.source is not None and settings.signing.key_file is not None:
        yield Finding(
            "warning",
            f"{_opener(settings)} lies on the machine that makes backups",
            "whoever breaks in here can read every backup",
            "keep it where restores run, and in two safe places",
        )
    newest = catalog.newest_sealing if catalog else None
    if repository is None or newest is None:
        yield Finding("ok", "the identity parses; there is nothing stored yet that it could open")
        return
    try:
        keys.open_data_key(repository, newest, identities)
    except errors.KpbackupError as exc:
        yield _failed(exc, "the newest backup cannot be restored with this identity")
        return
    yield Finding("ok", "the identity opens the newest backup")


def _opener(settings: config.Settings) -> str:
    found = settings.encryption
    return f"the identity {found.identity_file}" if found.identity_file else f"the passphrase {found.passphrase_file}"

