"""`kpbackup check`: audits what is stored: manifests, signatures, links, sizes, hashes, and with the identity the content."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, left, render

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository
    from kpbackup.repository.check import Report


def check(
    ctx: typer.Context,
    json: context.JsonOption = False,
    read_data: Annotated[
        str | None, typer.Option("--read-data", metavar="N%", help="Also read and hash this part of the objects.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Read and hash every object: the same as --read-data 100%.")] = False,
    expect_head: Annotated[
        str | None, typer.Option("--expect-head", metavar="FILE", help="Nothing this head file knows may be missing.")
    ] = None,
    write_head: Annotated[
        str | None, typer.Option("--write-head", metavar="FILE", help="Write the newest number of every log into a head file.")
    ] = None,
) -> None:
    """Audit the repository: manifests, signatures, links, presence and size of every object; with --all every byte.

    When an identity is configured, what is read is also decrypted and decompressed. Exits 17 when something is wrong. The result
    is left in the repository (reports/), so that status, page and metrics show it; an account that may only read is warned.
    """
    room = context.of(ctx, json=json)
    percent = _percent(read_data, everything=all_)
    from kpbackup.repository.check import check as audit
    from kpbackup.service import head_file, opening

    settings = room.settings
    identities = opening.identities(settings) if settings.encryption.opens else ()
    repository = opening.reading_repository(settings)
    expected = head_file.read(expect_head) if expect_head else None
    started_at = datetime.now(UTC)
    try:
        report = audit(repository, read_percent=percent, identities=identities, expected=expected)
    except (errors.IntegrityError, errors.KeyProblem, errors.RepositoryError):
        _leave(repository, started_at, None)
        raise
    _leave(repository, started_at, report)
    if write_head:
        head_file.write(write_head, report.head, now=datetime.now(UTC))
    _show(room, report)
    if report.problems:
        raise errors.IntegrityError(
            f"{len(report.problems)} problems in {repository.backend.name}",
            hint="points outside what the problems cost can still be restored; `kpbackup list` shows them",
        )


def _leave(repository: Repository, started_at: datetime, report: Report | None) -> None:
    """Leaves what was found in the repository, None for a check that could not finish."""
    figures = {}
    if report is not None:
        figures = {"manifests": report.manifests, "objects": report.objects, "read_objects": report.read_objects}
        figures |= {"read_bytes": report.read_bytes, "opened": int(report.opened), "problems": len(report.problems)}
    passed = report is not None and not report.problems
    left.report(repository, "check", started_at=started_at, passed=passed, figures=figures)


def _percent(text: str | None, *, everything: bool) -> int:
    if text is None:
        return 100 if everything else 0
    if everything:
        raise errors.UsageError("--all and --read-data exclude each other", hint="--all reads everything")
    digits = text.strip().removesuffix("%")
    if not digits.isdecimal() or not 1 <= int(digits) <= 100:
        raise errors.UsageError(
            f"--read-data {text!r} is not a part of the data", hint="write 1% to 100%, for example --read-data 10%"
        )
    return int(digits)


def _show(room: context.Context, report: Report) -> None:
    how = "decrypted and decompressed" if report.opened else "hashed; without an identity nothing was opened"
    room.printer.show(
        {
            "intact": not report.problems,
            "manifests": report.manifests,
            "objects": report.objects,
            "read_objects": report.read_objects,
            "read_bytes": report.read_bytes,
            "opened": report.opened,
            "head": report.head.logs,
            "problems": [{"key": one.key, "what": one.what, "costs": one.costs} for one in report.problems],
            "windows": [{"timeline": w.timeline, "start": w.start, "end": w.end} for w in report.windows],
        },
        render.Fields(
            [
                ("manifests", f"{report.manifests}, signatures and links verified"),
                ("objects", f"{report.objects}, there and of the right size" if not report.problems else report.objects),
                (
                    "read",
                    f"{report.read_objects} objects, {quantities.format_size(report.read_bytes)}, {how}"
                    if report.read_objects
                    else "none: --read-data 10% or --all reads the objects themselves",
                ),
                ("windows", "; ".join(f"{render.cell(w.start)} to {render.cell(w.end)}" for w in report.windows) or "none"),
            ]
        ),
        *(
            (render.Table(("object", "problem", "costs"), [(one.key, one.what, one.costs) for one in report.problems]),)
            if report.problems
            else ("no problem found",)
        ),
    )
