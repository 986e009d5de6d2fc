"""`kpbackup find`: the archive searched for the transaction to stop before."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors
from kpbackup.cli import context, render, told
from kpbackup.model import times
from kpbackup.service import progress

if TYPE_CHECKING:
    from kpbackup.recovery.find import Found
    from kpbackup.recovery.search import Criteria, Hit

MOST_WORKERS = 4

From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Committed at or after this time (read as that of `restore --to`).")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Committed before this time.")]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", help="DATABASE.TABLE or DATABASE, with * and ?; repeat for more.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="ddl, drop, truncate, account, insert, update or delete; repeat for more."),
]
Rows = Annotated[int, typer.Option("--rows", metavar="N", help="At least N rows changed, in those tables and ways.")]
Gtid = Annotated[str | None, typer.Option("--gtid", help="The transaction with this GTID.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", help="At most N hits.")]


def find(
    ctx: typer.Context,
    since: From = None,
    until: Until = None,
    table: TableOption = None,
    kind: Kinds = None,
    rows: Rows = 0,
    gtid: Gtid = None,
    limit: Limit = 100,
    json: context.JsonOption = False,
) -> None:
    """Search the archive for transactions: time, GTID, position, tables, rows, and the option that stops before each.

    All that is asked for must hold. Needs the identity, and reads only segments that can hold a hit. Exits with 31 when
    nothing is found.
    """
    from kpbackup.recovery import find as finding
    from kpbackup.recovery.binlog import SegmentReader
    from kpbackup.repository import catalog as catalogs
    from kpbackup.repository import choosing
    from kpbackup.service import opening

    room = context.of(ctx, json=json)
    identities = opening.identities(room.settings)
    repository = opening.reading_repository(room.settings)
    catalog = catalogs.read_catalog(repository)
    flavour = catalog.repository.flavour
    criteria = _criteria(
        room, flavour, since=since, until=until, tables=table or (), kinds=kind or (), rows=rows, gtid=gtid
    )
    if limit < 1 or rows < 0:
        raise errors.UsageError("--limit takes 1 or more, --rows 0 or more", hint="leave the option out for its usual value")
    with progress.show("find", stream=sys.stderr) as report:
        known = choosing.detailed_where(repository, catalog, lambda unit: finding.may_hold(unit, criteria, flavour))
        found = finding.find(
            SegmentReader(repository, identities), known, criteria, limit=limit,
            workers=min(os.cpu_count() or 1, MOST_WORKERS), progress=lambda done, total: report(done, total, "segments"),
        )
    _show(room, found, damaged=len(catalog.damaged))


def _criteria(room: context.Context, flavour: str, *, since: str | None, until: str | None, gtid: str | None,
              tables: Any, kinds: Any, rows: int) -> Criteria:
    from kpbackup.plan import timeline
    from kpbackup.recovery.search import Criteria, Sought

    def moment(text: str | None) -> datetime | None:
        return None if text is None else times.parse_moment(text, room.settings.zone, now=datetime.now(UTC))

    try:
        sought = tuple(Sought(name.lower()) for name in kinds)
    except ValueError as exc:
        raise errors.UsageError(f"--kind: {exc}", hint=f"kinds are {', '.join(Sought)}") from exc
    return Criteria(
        since=moment(since), until=moment(until), gtid=timeline.canonical_gtid(gtid, flavour) if gtid else None,
        tables=tuple(tables), kinds=sought, rows=rows,
    )


def stop_before(hit: Hit) -> str:
    """The option of `restore` that stops before this transaction."""
    transaction = hit.transaction
    return (
        f"--before-gtid {transaction.gtid}" if transaction.gtid else f"--to-position {transaction.file}:{transaction.start}"
    )


def _show(room: context.Context, found: Found, *, damaged: int) -> None:
    zone = room.settings.zone
    document = {
        "hits": [
            told.document(hit.transaction, hit.content) | {"timeline": timeline, "stop_before": stop_before(hit)}
            for timeline, hit in found.hits
        ],
        "more": found.more,
        "segments": found.segments,
        "segments_opened": found.opened,
        "damaged_manifests": damaged,
    }
    rows = [
        (
            times.format_moment(_committed(hit), zone), hit.transaction.gtid or None,
            f"{hit.transaction.file}:{hit.transaction.start}", told.text(hit.content), stop_before(hit),
        )
        for _, hit in found.hits
    ]
    table = render.Table(("COMMITTED", "GTID", "POSITION", "WHAT", "TO STOP BEFORE IT"), rows, empty="nothing found")
    notes = ["there are more: narrow the search, or raise --limit"] if found.more else []
    if damaged:
        notes.append(f"{damaged} manifests cannot be read, and what they stand for was not searched: run `kpbackup check`")
    room.printer.show(document, table, *notes)
    if not found.hits:
        raise errors.NothingFound(
            f"no archived transaction is like that ({found.opened} of {found.segments} segments were opened)",
            hint="`kpbackup list` shows what the archive holds; widen the time, or leave conditions out",
        )


def _committed(hit: Hit) -> datetime:
    from kpbackup.recovery import cut

    return cut.commit_time(hit.transaction)
