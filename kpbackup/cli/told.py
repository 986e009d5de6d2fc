"""Transactions told to people and programs: when, which tables, how many rows, which statements."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from kpbackup.model import times

if TYPE_CHECKING:
    from kpbackup.mysql.contents import Content, TableChange
    from kpbackup.mysql.transactions import Transaction
    from kpbackup.recovery.preview import Preview

TABLES_SHOWN = 8


def named(transaction: Transaction, zone: tzinfo) -> str:
    """`GTID at TIME`, or the position where there are no GTIDs."""
    from kpbackup.recovery import cut

    return f"{name(transaction)} at {times.format_moment(cut.commit_time(transaction), zone)}"


def name(transaction: Transaction) -> str:
    return transaction.gtid or f"{transaction.file}:{transaction.start}"


def text(content: Content) -> str:
    """What a transaction did, in one line."""
    parts = list(content.texts)
    parts += [_table(change) for change in content.tables[:TABLES_SHOWN]]
    if len(content.tables) > TABLES_SHOWN:
        parts.append(f"and {len(content.tables) - TABLES_SHOWN} more tables")
    return "; ".join(parts) or "nothing"


def _table(change: TableChange) -> str:
    counts = {"inserted": change.inserted, "updated": change.updated, "deleted": change.deleted}
    told = [f"{count} {what}" if count is not None else f"{what} (not counted)" for what, count in counts.items() if count != 0]
    return f"{change.name}: {', '.join(told)}"


def document(transaction: Transaction, content: Content | None = None) -> dict[str, Any]:
    """The same for programs; `null` rows could not be counted."""
    from kpbackup.recovery import cut

    found: dict[str, Any] = {
        "gtid": transaction.gtid,
        "committed_at": cut.commit_time(transaction),
        "file": transaction.file,
        "start": transaction.start,
        "end": transaction.end,
    }
    if content is not None:
        found["tables"] = [
            {"table": change.name, "inserted": change.inserted, "updated": change.updated, "deleted": change.deleted}
            for change in content.tables
        ]
        found["statements"] = list(content.texts)
    return found


def preview_document(preview: Preview) -> dict[str, Any]:
    """The keys that a plan has of its cut's surroundings."""

    def both(found: Any) -> dict[str, Any] | None:
        return None if found is None else document(found.transaction, found.content)

    return {
        "last_included_details": both(preview.last_included),
        "first_excluded_details": both(preview.first_excluded),
        "skipped": [document(found.transaction, found.content) for found in preview.skipped],
        "earlier_stamped": [document(transaction) for transaction in preview.earlier_stamped],
        "xa_left_prepared": [document(transaction) for transaction in preview.left_prepared],
    }


def preview_fields(preview: Preview, zone: tzinfo) -> dict[str, str | None]:
    """Label -> text of the same; None where there is nothing to say."""
    last, first = preview.last_included, preview.first_excluded
    return {
        "last did": text(last.content) if last else None,
        "excluded does": text(first.content) if first else None,
        "left out": "; ".join(f"{named(s.transaction, zone)}: {text(s.content)}" for s in preview.skipped) or None,
        "later, but stamped earlier": _several(preview.earlier_stamped, zone),
        "XA left prepared": _several(preview.left_prepared, zone),
    }


def _several(found: Iterable[Transaction], zone: tzinfo) -> str | None:
    shown = list(found)
    told = ", ".join(named(one, zone) for one in shown[:3])
    return f"{len(shown)} transactions are not included: {told}" if len(shown) > 3 else told or None
