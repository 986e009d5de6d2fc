"""Rows with typed JSON values on their way into a server: taken out of the stream, and inserted by statements of their own.

Rows whose type lists are all NULL go the fast way, without their lists. A row with a typed value is taken apart into its
values, none of which is decoded but the documents and lists; its INSERT has JSON_SET(?, path, value, ...) where others have
a placeholder. Rows alike in this (the same paths and kinds) share a prepared statement and, when they follow one another,
an execution. The values are right from the start, so checks, generated columns, indexes over them and columns that update
themselves see what they saw on the source.

Staged values (`stage`) are made and deleted in the chunk's own transaction: a crash leaves none.

Limits: a document with typed values is held whole, with one entry for each. More than MAX_INLINE of them are set in
portions, in the scratch schema; such a document must fit into the target's max_allowed_packet.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kpbackup import errors
from kpbackup.mysql import batch, frame, json_rebuild, json_types, quoting, server, stage, wire
from kpbackup.mysql.json_rebuild import Inline
from kpbackup.mysql.json_types import TypedValue

MAX_INLINE = 400
GROUP_ROWS = 64
GROUP_BYTES = batch.BATCH_BYTES
KEPT_SHAPES = 16
_STRING_TYPE = batch.STRING.to_bytes(2, "little")
_LONGLONG_TYPE = (wire.TYPE_LONGLONG | wire.UNSIGNED).to_bytes(2, "little")


class RowInserts(Protocol):
    """What inserts batches of one statement: `mysql.inserts` has it."""

    limit_bytes: int

    def send(self, full: batch.Batch) -> None: ...
    def finish(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Shape:
    """`row` is what one row of the statement's VALUES reads; `types` the types of its parameters."""

    row: str
    types: bytes


Parameters = list[bytes | None]  # one row's values as they are sent
OpenInserts = Callable[[Shape], RowInserts]


@dataclass(frozen=True)
class TypedRow:
    """The encoded value of each column (None for NULL), and the type lists of the JSON columns that have one."""

    values: tuple[bytes | None, ...]
    lists: dict[int, bytes]


class RowSplitter:
    """Tells rows without typed values from the others. Pure."""

    def __init__(self, head: frame.Frame) -> None:
        columns, lists = len(head.columns), len(head.json_types)
        self._kinds = [batch.parameter_type(column) & 0xFF for column in head.columns] + [batch.STRING] * lists
        self._json = [[column.name for column in head.columns].index(name) for name in head.json_types]
        self._bitmap_bytes, self._plain_bytes = wire.bitmap_bytes(columns + lists), wire.bitmap_bytes(columns)
        self._list_bits = ((1 << lists) - 1) << columns + 2

    def split(self, block: frame.RowBlock) -> tuple[frame.RowBlock | None, list[TypedRow]]:
        """The block without its typed rows and without lists (None when nothing is left), and the typed rows."""
        if block.large:
            return self._split_large(block)
        wanted = self._list_bits
        is_typed = [int.from_bytes(bitmap, "little") & wanted != wanted for bitmap in block.bitmaps]
        if not any(is_typed) and self._bitmap_bytes == self._plain_bytes:
            return block, []
        found = [
            self._take_apart(bitmap, memoryview(values))
            for bitmap, values in itertools.compress(zip(block.bitmaps, block.values, strict=True), is_typed)
        ]
        is_plain = [not typed for typed in is_typed]
        bitmaps = [bitmap[: self._plain_bytes] for bitmap in itertools.compress(block.bitmaps, is_plain)]
        if not bitmaps:
            return None, found
        values = list(itertools.compress(block.values, is_plain))
        return replace(block, bitmaps=bitmaps, values=values), found

    def _split_large(self, block: frame.RowBlock) -> tuple[frame.RowBlock | None, list[TypedRow]]:
        raw = block.data
        assert isinstance(raw, bytearray)
        begin, end = wire.HEADER_BYTES + 1, wire.HEADER_BYTES + 1 + self._bitmap_bytes
        if int.from_bytes(raw[begin:end], "little") & self._list_bits != self._list_bits:
            payload = batch.without_headers(raw)
            values_start = 1 + self._bitmap_bytes
            return None, [self._take_apart(bytes(payload[1:values_start]), payload[values_start:])]
        surplus = self._bitmap_bytes - self._plain_bytes
        if surplus:
            length = int.from_bytes(raw[:3], "little") - surplus
            raw[:3] = length.to_bytes(3, "little")
            del raw[end - surplus : end]
        return replace(block, end=len(raw)), []

    def _take_apart(self, bitmap: bytes, encoded: memoryview) -> TypedRow:
        position = 0
        nulls = int.from_bytes(bitmap, "little") >> 2
        values: list[bytes | None] = []
        try:
            for place, kind in enumerate(self._kinds):
                if nulls >> place & 1:
                    values.append(None)
                    continue
                _, end = batch.value_bounds(encoded, position, kind)
                values.append(bytes(encoded[position:end]))
                position = end
        except (ValueError, IndexError) as exc:
            raise errors.IntegrityError(f"a row of a chunk is malformed: {exc}") from exc
        columns = len(self._kinds) - len(self._json)
        lists = zip(self._json, values[columns:], strict=True)
        return TypedRow(tuple(values[:columns]), {place: _content(value) for place, value in lists if value is not None})


class TypedRows:
    """Inserts the typed rows of one frame. `before` reads all answers that are under way on the session."""

    def __init__(
        self, connection: server.Connection, *, head: frame.Frame, open_inserts: OpenInserts, before: Callable[[], None]
    ) -> None:
        self._before, self._open = before, open_inserts
        self._splitter = RowSplitter(head)
        self._stage = stage.Stage(connection)
        self._types = [batch.parameter_type(column).to_bytes(2, "little") for column in head.columns]
        self._inserts: dict[Shape, RowInserts] = {}
        self._waiting: list[TypedRow] = []
        self._waiting_bytes = 0

    def separate(self, blocks: Iterable[frame.RowBlock]) -> Iterator[frame.RowBlock]:
        """The blocks without their typed rows, which are inserted meanwhile: all are in when the iteration ends."""
        for block in blocks:
            plain, typed = self._splitter.split(block)
            if plain is not None:
                yield plain
            for row in typed:
                self._waiting.append(row)
                self._waiting_bytes += sum(len(value) for value in row.values if value is not None)
                if len(self._waiting) >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
                    self._flush()
        self._flush()
        self._close()

    def drain(self) -> None:
        """Reads the answers under way and forgets what they say."""
        for inserts in self._inserts.values():
            inserts.drain()

    def _flush(self) -> None:
        if not self._waiting:
            return
        self._before()
        rows = [self._parameters(row) for row in self._waiting]
        for shape, alike in itertools.groupby(rows, key=lambda row: row[0]):
            self._insert(shape, [parameters for _, parameters in alike])
        self._stage.clear()
        self._waiting, self._waiting_bytes = [], 0

    def _insert(self, shape: Shape, rows: list[Parameters]) -> None:
        if shape not in self._inserts:
            if len(self._inserts) >= KEPT_SHAPES:
                self._close()
            self._inserts[shape] = self._open(shape)
        inserts = self._inserts[shape]
        largest = max(sum(len(value or b"") for value in row) for row in rows)
        most = max(1, min(batch.MAX_PLACEHOLDERS // len(rows[0]), inserts.limit_bytes // max(largest, 1)))
        for begin in range(0, len(rows), most):
            inserts.send(_batch(rows[begin : begin + most]))
        inserts.finish()

    def _close(self) -> None:
        for inserts in self._inserts.values():
            inserts.close()
        self._inserts.clear()

    def _parameters(self, row: TypedRow) -> tuple[Shape, Parameters]:
        """The row's shape and parameters; values that need it are given to the stage."""
        items: list[str] = []
        types: list[bytes] = []
        parameters: Parameters = []
        for place, value in enumerate(row.values):
            item = _Item("?", [self._types[place]], [value])
            if value is not None and place in row.lists:
                item = self._document(value, json_types.typed_values(_content(value), row.lists[place]))
            items.append(item.sql)
            types += item.types
            parameters += item.parameters
        return Shape("(" + ",".join(items) + ")", b"".join(types)), parameters

    def _document(self, encoded: bytes, typed: list[TypedValue]) -> _Item:
        """The expression of a document with its typed values."""
        if len(typed) > MAX_INLINE:
            staged = self._stage.document(_content(encoded), typed)
            return _Item(stage.WHOLE, [_LONGLONG_TYPE], [_encoded(staged)])
        item = _Item("?", [_STRING_TYPE], [encoded])
        changes: list[tuple[str, str]] = []
        for value in typed:
            made = json_rebuild.rebuild(value)
            sql, found = (made.sql, made.parameter) if isinstance(made, Inline) else (stage.FIRST, self._stage.value(made))
            kind, parameter = _LONGLONG_TYPE if isinstance(found, int) else _STRING_TYPE, _encoded(found)
            item.types.append(kind)
            if value.path == "$":
                return _Item(f"JSON_EXTRACT(JSON_ARRAY({sql}), '$[0]')", [kind], [parameter])
            changes.append((value.path, sql))
            item.parameters.append(parameter)
        item.sql = _set_sql(tuple(changes))
        return item


@dataclass
class _Item:
    """What stands for one column in VALUES, with the types and encoded values of its parameters."""

    sql: str
    types: list[bytes]
    parameters: Parameters


@functools.lru_cache(maxsize=256)
def _set_sql(changes: tuple[tuple[str, str], ...]) -> str:
    return "JSON_SET(?" + "".join(f", {quoting.literal(path)}, {sql}" for path, sql in changes) + ")"


def _batch(rows: Sequence[Parameters]) -> batch.Batch:
    flat = [value for row in rows for value in row]
    nulls = sum(1 << place for place, value in enumerate(flat) if value is None)
    found = [value for value in flat if value is not None]
    return batch.Batch(
        rows=len(rows), nulls=nulls.to_bytes((len(flat) + 7) // 8, "little"), values=found, size_bytes=sum(map(len, found))
    )


def _content(encoded: bytes) -> bytes:
    """A value without its length."""
    length, begin = wire.read_lenenc_int(encoded, 0)
    return encoded[begin : begin + length]


def _encoded(parameter: str | int) -> bytes:
    """A number in eight bytes, a text behind its length."""
    if isinstance(parameter, int):
        return parameter.to_bytes(8, "little")
    value = parameter.encode()
    size = len(value)
    if size < 0xFB:
        return bytes([size]) + value
    for mark, width in ((0xFC, 2), (0xFD, 3)):
        if size < 1 << 8 * width:
            return bytes([mark]) + size.to_bytes(width, "little") + value
    return b"\xfe" + size.to_bytes(8, "little") + value
