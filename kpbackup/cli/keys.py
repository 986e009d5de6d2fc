"""`kpbackup keys list`, `rewrap` and `canary`: what keys there are, sealing to today's recipients, and proof that they open."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, render
from kpbackup.service import progress

if TYPE_CHECKING:
    from kpbackup.config import Settings
    from kpbackup.pipeline import encrypt
    from kpbackup.repository.binding import Repository
    from kpbackup.repository.canary import CanaryState


def list_(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """List recipients with what their canaries prove, how many data keys are sealed to how many recipients, and trusted signers.

    age files do not say whom they are sealed to: an identity tells (`kpbackup keys canary --check`, `kpbackup check`).
    """
    from kpbackup.repository import canary as canaries
    from kpbackup.repository import rewrap as rewrapping
    from kpbackup.service import opening

    room = context.of(ctx, json=json)
    repository = opening.reading_repository(room.settings)
    states = {state.recipient: state for state in canaries.read_states(repository)}
    configured = _configured(room.settings)
    counts = Counter(one.recipients for one in rewrapping.list_data_keys(repository))
    known = tuple(dict.fromkeys((*configured, *states)))
    rows = [_row(recipient, states.get(recipient), configured=recipient in configured) for recipient in known]
    trusted = [str(key) for key in repository.public_keys]
    document = {
        "recipients": rows,
        "data_keys": [{"recipients": number, "data_keys": count} for number, count in sorted(counts.items())],
        "public_keys": trusted,
    }
    sealed = "; ".join(f"{count} sealed to {number} recipients" for number, count in sorted(counts.items())) or "none yet"
    room.printer.show(
        document,
        render.Table(
            ("recipient", "in the settings", "newest canary", "proven to open"),
            [(row["recipient"], row["configured"], row["canary_at"], row["proven_at"] or "never") for row in rows],
        ),
        "",
        render.Fields([("data keys", sealed), *(("trusted signer", key) for key in trusted)]),
    )


def _configured(settings: Settings) -> tuple[str, ...]:
    """The recipients of the settings; a machine that only reads has none."""
    encryption = settings.encryption
    return settings.need_recipients() if encryption.recipients or encryption.recipients_file else ()


def _row(recipient: str, state: CanaryState | None, *, configured: bool) -> dict[str, object]:
    return {
        "recipient": recipient,
        "configured": configured,
        "canary_at": state.newest_at if state else None,
        "proven_at": state.proven_at if state else None,
    }


def rewrap(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Seal every data key to the recipients in the settings, where an identity is; data and manifests are not touched.

    Needs an identity that opens what is stored, and credentials that may put. Data keys that are sealed to the same
    recipients already are left alone, so an interrupted run is simply run again.
    """
    from kpbackup.repository import rewrap as rewrapping
    from kpbackup.service import opening

    room = context.of(ctx, json=json)
    settings = room.settings
    opening.refuse_copy(settings)
    recipients, identities = opening.recipients(settings), opening.identities(settings)
    _keep_a_way_in(recipients, identities)
    repository = opening.reading_repository(settings)
    with progress.show("rewrap", stream=sys.stderr) as report:
        done = rewrapping.rewrap(repository, identities, recipients, progress=lambda n, total: report(n, total, "data keys"))
    document = {
        "written": done.written,
        "current": done.current,
        "unopened": [{"key_id": key_id, "why": why} for key_id, why in done.unopened],
    }
    told = f"{done.written} key objects written, {done.current} were sealed to these {len(recipients)} recipients already"
    room.printer.show(document, told)
    if done.unopened:
        raise errors.KeyProblem(
            f"{len(done.unopened)} data keys of {repository.backend.name} open with none of these identities, "
            f"the first is {done.unopened[0][0]}: {done.unopened[0][1]}",
            hint="run it again with the identity they were sealed to; docs/keys.md says what to do when that is lost",
        )


def _keep_a_way_in(recipients: Sequence[encrypt.Recipient], identities: Sequence[encrypt.Identity]) -> None:
    """One of the identities used should be among the recipients, or nobody here can tell whether the result opens."""
    own = {str(identity.recipient) for identity in identities}
    if not own & {str(recipient) for recipient in recipients}:
        raise errors.KeyProblem(
            "none of the identities given belongs to a recipient in the settings: what is rewrapped could not be tried here",
            hint="add the identity of one new recipient to the identity file, beside the old one",
        )


def canary(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Open the newest canary, and the newest backup's key, with the identity given.")
    ] = False,
    json: context.JsonOption = False,
) -> None:
    """Make a canary for each recipient, where backups are made; with --check prove, where an identity is, that it opens.

    The proof lies in the repository and moves kpbackup_canary_last_success_timestamp_seconds. Exits 18 when a key does not open.
    """
    from kpbackup.repository import canary as canaries
    from kpbackup.service import opening

    room = context.of(ctx, json=json)
    settings, now = room.settings, datetime.now(UTC)
    if not check:
        repository = opening.writing_repository(settings)
        made = canaries.renew(repository, opening.recipients(settings), now=now)
    else:
        repository, identities = opening.reading_repository(settings), opening.identities(settings)
        made = canaries.open_newest(repository, identities)
        _open_newest_backup(repository, identities)
    rows = [{"recipient": one.recipient, "made_at": one.head.created_at} for one in made]
    room.printer.show(
        {"checked": check, "canaries": rows},
        render.Table(("recipient", "opened, made" if check else "made"), [(row["recipient"], row["made_at"]) for row in rows]),
    )


def _open_newest_backup(repository: Repository, identities: Sequence[encrypt.Identity]) -> None:
    """A canary shows that a key is there; this, that the newest backup is sealed to one of them."""
    from kpbackup.repository import catalog as catalogs
    from kpbackup.repository import keys

    sealing = catalogs.read_catalog(repository).newest_sealing
    if sealing is not None:
        keys.open_data_key(repository, sealing, identities)
