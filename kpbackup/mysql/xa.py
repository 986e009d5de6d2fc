"""XA transactions in a binlog: which one an event prepares or ends. One spelling of an xid for both flavours.

Source: MySQL internals manual, 'XA_prepare_log_event'.
"""

from __future__ import annotations

import re
import struct

from kpbackup import errors
from kpbackup.mysql import events

_PREPARE = struct.Struct("<BIII")  # one phase, format, lengths of the two parts
_ENDS = re.compile(
    rb"\s*XA\s+(?P<verb>COMMIT|ROLLBACK)\s+X'(?P<first>[0-9a-f]*)',X'(?P<second>[0-9a-f]*)',(?P<format>\d+)", re.IGNORECASE
)


def prepared(data: bytes) -> tuple[str, bool]:
    """(xid, whether it was committed in one phase) of an XA_PREPARE event; the xid as XA statements take it.

    Raises:
        IntegrityError: malformed.
    """
    try:
        one_phase, kind, first, second = _PREPARE.unpack_from(data, events.HEADER_BYTES)
    except struct.error as exc:
        raise errors.IntegrityError("XA prepare event is cut") from exc
    at = events.HEADER_BYTES + _PREPARE.size
    return _spelled(data[at : at + first].hex(), data[at + first : at + first + second].hex(), kind), bool(one_phase)


def ended(text: bytes) -> tuple[str, str] | None:
    """(COMMIT or ROLLBACK, xid) of an XA statement that ends a transaction; None for any other text."""
    found = _ENDS.match(text)
    if found is None:
        return None
    xid = _spelled(found["first"].decode(), found["second"].decode(), int(found["format"]))
    return found["verb"].decode().upper(), xid


def _spelled(first: str, second: str, kind: int) -> str:
    return f"X'{first.lower()}',X'{second.lower()}',{kind}"
