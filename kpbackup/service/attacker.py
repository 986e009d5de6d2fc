"""`doctor --as-attacker`: what somebody could do who took over this machine, found out by doing it to probes of our own.

It tries to open the newest backup with everything that lies here, to overwrite and to delete a probe, to shorten or lift the lock
of a locked one, and to read it as nobody. Nothing of the repository is touched: all is done below `probes/`. What was possible is
a finding with the remedy; a refusal is what we want.

Limits: rights on `probes/` are taken for rights on the rest, so policies should not set it apart. A probe of a bucket with Object
Lock stays locked for a minute.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kpbackup import config, errors
from kpbackup.mysql.findings import Finding
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys
from kpbackup.service import opening
from kpbackup.service.doctor import Examined
from kpbackup.storage import locks, probe

if TYPE_CHECKING:
    from kpbackup.storage.backend import Backend

LOCKED_FOR = timedelta(minutes=1)
_POLICIES = "docs/security.md has the policies of the three identities"


def attack(settings: config.Settings) -> list[Examined]:
    """All findings; it raises nothing of KpbackupError."""
    found: list[Finding] = []
    for attempt in (_decrypt, _write):
        try:
            found += attempt(settings)
        except errors.KpbackupError as exc:
            found.append(Finding("error", exc.message, "what an attacker could do here is not known", exc.hint))
    return [Examined("attacker", one) for one in found]


def _decrypt(settings: config.Settings) -> Iterator[Finding]:
    repository = opening.reading_repository(settings)
    sealing = catalogs.read_catalog(repository).newest_sealing
    if sealing is None:
        yield Finding("warning", "nothing is stored yet that could be decrypted", "this was not tried", "make a backup first")
        return
    if not settings.encryption.opens:
        yield Finding("ok", "could not decrypt the newest backup: no identity lies here")
        return
    try:
        keys.open_data_key(repository, sealing, opening.identities(settings))
    except errors.KeyProblem:
        yield Finding("ok", "could not decrypt the newest backup: the identity that lies here does not open it")
        return
    yield Finding(
        "error",
        "could decrypt the newest backup with the identity that lies here",
        "who takes over this machine reads every backup",
        "keep encryption.identity_file where restores run, and not where backups are made",
    )


def _write(settings: config.Settings) -> Iterator[Finding]:
    store = opening.backend(settings)
    locking = store if isinstance(store, locks.LockingBackend) else None
    keeps = False
    try:
        keeps = locking is not None and locking.keeps_versions()
    except errors.StorageError as exc:
        yield Finding("warning", "this account may not ask whether the bucket keeps versions", exc.message, _POLICIES)
    key = f"{probe.PREFIX}{secrets.token_hex(16)}-attacker"
    store.put_if_absent(key, b"the probe")
    yield _overwrite(store, key, keeps=keeps)
    yield _delete(store, key, keeps=keeps)
    if locking is not None and locking.can_lock():
        yield from _lift_lock(locking, f"{key}-locked")
    elif settings.need_repository().lock.mode != "off":
        yield Finding(
            "error",
            f"{store.name} has no Object Lock, and repository.lock asks for it",
            "nothing can be stored with a lock there",
            "make a bucket with Object Lock (it cannot be switched on by kpbackup), or set repository.lock.mode: off",
        )
    else:
        yield Finding(
            "warning",
            f"{store.name} has no Object Lock",
            "what keeps backups from being deleted is the account's rights alone",
            "use a bucket made with Object Lock, and repository.lock",
        )


def _overwrite(store: Backend, key: str, *, keeps: bool) -> Finding:
    try:
        store.put(key, [b"overwritten"])
    except errors.StorageError:
        return Finding("ok", "could not overwrite a probe")
    if store.read(key) != b"overwritten":
        return Finding("ok", "could not overwrite a probe: the store kept the first")
    if keeps:
        return Finding("ok", "could overwrite a probe, but the store keeps the version before")
    return Finding(
        "error",
        "could overwrite a probe for good",
        "who takes over this machine can destroy backups by writing over them",
        f"switch versioning on for the bucket, better Object Lock; {_POLICIES}",
    )


def _delete(store: Backend, key: str, *, keeps: bool) -> Finding:
    try:
        store.delete(key)
        store.head(key)
    except errors.ObjectMissing:
        if keeps:
            return Finding(
                "warning",
                "could delete a probe, and the store keeps the version before",
                "backups can be hidden, and brought back by hand",
                f"take the right to delete from this account; {_POLICIES}",
            )
        return Finding(
            "error",
            "could delete a probe for good",
            "who takes over this machine can delete every backup",
            f"take the right to delete from this account; {_POLICIES}",
        )
    except errors.StorageError:
        pass
    return Finding("ok", "could not delete a probe")


def _lift_lock(store: locks.LockingBackend, key: str) -> Iterator[Finding]:
    until = datetime.now(UTC) + LOCKED_FOR
    version = store.put_locked(key, b"the locked probe", mode="governance", until=until)
    for bypass, told in ((False, "delete a locked probe"), (True, "lift the governance lock of a probe")):
        try:
            store.delete_version(key, version, bypass=bypass)
        except errors.StorageError:
            yield Finding("ok", f"could not {told}")
            continue
        yield Finding(
            "error",
            f"could {told}",
            "the lock protects from nobody who has this account",
            "take s3:BypassGovernanceRetention and s3:DeleteObjectVersion from it, or use compliance locks",
        )
        return
