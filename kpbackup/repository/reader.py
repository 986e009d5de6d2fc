#!/usr/bin/env python3
"""kpbackup reader 1: turns the row chunks of a kpbackup repository into SQL, without kpbackup.

It lies in every repository as reader-1.py (signed: verify it with minisign before you run it). Python 3.9 or newer and
its standard library are enough. Standard input is one data object, decrypted and decompressed:

    set -o pipefail
    age -d -i data.key OBJECT | zstd -d | python3 reader-1.py sql  | mariadb     exact INSERT statements
    age -d -i data.key OBJECT | zstd -d | python3 reader-1.py list               which tables, how many rows

Every value is exact: characters and bytes as hexadecimal, FLOAT and DOUBLE with 17 digits, zero dates as they are. Typed
values inside MySQL's JSON keep their types, but BLOBs come back as VARBINARY, and the size of a DECIMAL may be another.
The statements set the session they need (UTC, no foreign key checks) and leave the binary log as the client has it.

Limits: create the tables first (1-before-rows.sql of the set). A row is printed as one statement at least: for large
values raise max_allowed_packet in the server and the client to twice the value's size and more. Input that is not what
kpbackup wrote, or ends too early, ends this program with status 1 and makes the receiving client fail as well; the rows
printed until then are not all there are.

Format: docs/format.md of kpbackup, "Row chunks"; values: "Binary Protocol Value" of the MySQL protocol manual.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MAGIC = b"KPROWS1\n"
MAX_PAYLOAD = 0xFFFFFF
HEADER_LIMIT_BYTES = 64 << 20
DEFAULT_STATEMENT_BYTES = 1 << 20  # far below the servers' default max_allowed_packet

PREAMBLE = """SET NAMES utf8mb4;
SET time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', foreign_key_checks=0, unique_checks=0;
/*M!100201 SET check_constraint_checks=0 */;
/*M!101100 SET system_versioning_insert_history=1 */;
SET @forever=COALESCE(CONCAT(FROM_UNIXTIME(4294967295), '.999999'), '2038-01-19 03:14:07.999999');
"""
FOREVER = "'2038-01-19 03:14:07.999999'"  # the end of a current row of a system-versioned table, on every server
# Valid SQL that fails on purpose: a client that only sees its input end would report success.
ALARM = "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='kpbackup reader: the input was not whole, rows are missing';\n"

UNSIGNED_FLAG = 0x20
TEXT_LITERALS = ("uuid", "inet4", "inet6")  # as bytes these would be taken for their raw 16 bytes

# A decoder takes a row's payload and an offset; it gives the value as SQL and the offset after it.
Decoder = Callable[[bytes, int], "tuple[str, int]"]


class NotWhole(Exception):
    """The input is not what kpbackup wrote; the text says where."""


class Chunk:
    """The head of one chunk: where its rows belong and how each column is read."""

    def __init__(self, header: dict[str, Any], definitions: list[bytes]) -> None:
        try:
            self.schema: str = header["schema"]
            self.table: str = header["table"]
            self.names: list[str] = [column["name"] for column in header["columns"]]
            # behind the columns each row has the type lists of some of them
            self.ends = [self.names.index(name) for name in header.get("history", ())[1:]]
            self.typed = [self.names.index(name) for name in header.get("json_types", ())]
            self.decoders = [
                column_decoder(column, header["expressions"][index], definitions[index])
                for index, column in enumerate(header["columns"])
            ] + [decode_list] * len(self.typed)
        except (KeyError, IndexError, TypeError, ValueError, struct.error) as exc:
            raise NotWhole("a chunk's header cannot be understood: " + repr(exc)) from exc

    @property
    def name(self) -> str:
        return self.schema + "." + self.table


class Source:
    """Bytes of standard input, in exact portions."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.offset = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = self._stream.read(size)
        self.offset += len(data)
        if len(data) != size:
            raise NotWhole(f"the input is cut off at byte {self.offset}")
        return data

    def start(self) -> bool:
        """True at the beginning of a chunk, False at the clean end of the input."""
        magic = self._stream.read(len(MAGIC))
        if not magic:
            return False
        if magic != MAGIC:
            raise NotWhole(f"no chunk begins at byte {self.offset}; is the input decrypted and decompressed?")
        self.offset += len(magic)
        return True

    def packet(self) -> bytes:
        """The payload of the next packet, split ones joined."""
        pieces = []
        length = MAX_PAYLOAD
        while length == MAX_PAYLOAD:
            length = int.from_bytes(self.take(4)[:3], "little")
            pieces.append(self.take(length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_head(source: Source) -> Chunk:
    """The head of a chunk whose magic bytes were just read."""
    size = int.from_bytes(source.take(4), "little")
    if size > HEADER_LIMIT_BYTES:
        raise NotWhole(f"a chunk claims a header of {size} bytes")
    try:
        header = json.loads(source.take(size).decode("utf-8"))
        count = len(header["columns"]) + len(header.get("json_types", ()))
        zone = header["time_zone"]
    except (ValueError, KeyError, TypeError) as exc:
        raise NotWhole("a chunk's header cannot be read: " + repr(exc)) from exc
    if zone != "+00:00":
        raise NotWhole(f"times in zone {zone!r}, expected +00:00")
    return Chunk(header, [source.packet() for _ in range(count)])


def read_rows(source: Source) -> Iterator[bytes]:
    """The payloads of a chunk's rows, up to its end packet."""
    while True:
        payload = source.packet()
        if payload[:1] == b"\x00":
            yield payload
        elif payload[:1] == b"\xfe" and len(payload) < 9:
            return
        else:
            raise NotWhole(f"a packet before byte {source.offset} is neither row nor end")


def lenenc(data: bytes, offset: int) -> tuple[int, int]:
    """(length, offset after it) of a length-encoded integer."""
    first = data[offset]
    if first < 0xFB:
        return first, offset + 1
    if first == 0xFB or first == 0xFF:
        raise NotWhole(f"a length begins with {first:#x}")
    end = offset + 1 + {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[offset + 1 : end], "little"), end


def take_bytes(data: bytes, offset: int) -> tuple[bytes, int]:
    """(bytes, offset after them) of a length-encoded string."""
    length, start = lenenc(data, offset)
    end = start + length
    if end > len(data):
        raise NotWhole("a value is longer than its row")
    return data[start:end], end


def column_decoder(column: dict[str, Any], expression: str, definition: bytes) -> Decoder:
    """How the values of one column are read: by their type on the wire and, where it leaves a choice, by the column's."""
    offset = 0
    for _ in range(6):  # six names, then a length, then character set, display length, type, flags
        _, offset = take_bytes(definition, offset)
    _, offset = lenenc(definition, offset)
    kind, flags = struct.unpack_from("<xxxxxxBH", definition, offset)
    if expression not in ("plain", "char", "unsigned", "json"):
        raise ValueError("unknown expression " + expression)
    if kind in INTEGERS:
        signed, unsigned = INTEGERS[kind]
        return integer_decoder(unsigned if flags & UNSIGNED_FLAG else signed)
    if kind in FIXED:
        return FIXED[kind]
    if kind in (0, 246):
        return decode_number_text
    if expression == "char" or column["data_type"] in TEXT_LITERALS:
        return decode_short_text
    if column["data_type"] == "json":
        return decode_json
    return decode_bytes


def integer_decoder(form: struct.Struct) -> Decoder:
    def decode(data: bytes, offset: int) -> tuple[str, int]:
        return str(form.unpack_from(data, offset)[0]), offset + form.size

    return decode


def decode_float(data: bytes, offset: int) -> tuple[str, int]:
    # An exponent makes it a DOUBLE for the server, without one it is a DECIMAL, which has no -0.
    return f"{struct.unpack_from('<f', data, offset)[0]:.16e}", offset + 4


def decode_double(data: bytes, offset: int) -> tuple[str, int]:
    return f"{struct.unpack_from('<d', data, offset)[0]:.16e}", offset + 8


def decode_date(data: bytes, offset: int) -> tuple[str, int]:
    length, offset = data[offset], offset + 1
    year, month, day = struct.unpack_from("<HBB", data, offset) if length else (0, 0, 0)
    return f"'{year:04d}-{month:02d}-{day:02d}'", offset + length


def decode_datetime(data: bytes, offset: int) -> tuple[str, int]:
    length, offset = data[offset], offset + 1
    fields = data[offset : offset + length]
    if len(fields) != length or length not in (0, 4, 7, 11):
        raise NotWhole(f"a time stamp of {length} bytes")
    year, month, day, hour, minute, second, micros = struct.unpack("<HBBBBBI", fields + bytes(11 - length))
    text = f"{year:04d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}"
    return f"'{text}.{micros:06d}'" if micros else f"'{text}'", offset + length


def decode_time(data: bytes, offset: int) -> tuple[str, int]:
    length, offset = data[offset], offset + 1
    fields = data[offset : offset + length]
    if len(fields) != length or length not in (0, 8, 12):
        raise NotWhole(f"a time of {length} bytes")
    negative, days, hour, minute, second, micros = struct.unpack("<BIBBBI", fields + bytes(12 - length))
    text = f"{'-' if negative else ''}{days * 24 + hour:02d}:{minute:02d}:{second:02d}"
    return f"'{text}.{micros:06d}'" if micros else f"'{text}'", offset + length


def decode_number_text(data: bytes, offset: int) -> tuple[str, int]:
    text, offset = take_bytes(data, offset)
    if not text or text.strip(b"-.0123456789"):
        raise NotWhole("a DECIMAL that is no number")
    return text.decode("ascii"), offset


def decode_short_text(data: bytes, offset: int) -> tuple[str, int]:
    text, offset = take_bytes(data, offset)
    if text.strip(b"-.:0123456789abcdefABCDEF"):
        raise NotWhole("a time, UUID or address with foreign characters")
    return "'" + text.decode("ascii") + "'", offset


def decode_json(data: bytes, offset: int) -> tuple[str, int]:
    text, offset = take_bytes(data, offset)
    return "_utf8mb4 x'" + text.hex() + "'", offset  # JSON is refused from binary strings


def decode_bytes(data: bytes, offset: int) -> tuple[str, int]:
    # _binary: the bytes are stored as they are in any character set; a bare hexadecimal literal can count as a number.
    found, offset = take_bytes(data, offset)
    return "_binary x'" + found.hex() + "'", offset


def decode_list(data: bytes, offset: int) -> tuple[str, int]:
    text, offset = take_bytes(data, offset)
    return text.decode("ascii", "replace"), offset


INTEGERS = {
    1: (struct.Struct("<b"), struct.Struct("<B")),
    2: (struct.Struct("<h"), struct.Struct("<H")),
    3: (struct.Struct("<i"), struct.Struct("<I")),
    8: (struct.Struct("<q"), struct.Struct("<Q")),
    9: (struct.Struct("<i"), struct.Struct("<I")),
    13: (struct.Struct("<H"), struct.Struct("<H")),
}
FIXED: dict[int, Decoder] = {
    4: decode_float, 5: decode_double, 7: decode_datetime, 10: decode_date, 11: decode_time, 12: decode_datetime,
}


TYPE_ITEM = re.compile(r"(?:([.[])(\d+)|\$)([a-z])(\d*)")
WIDTH = {".": 2, "[": 1, "$": 1}  # tokens of one value
JSON_TOKEN = re.compile(rb'"|[\[\]{}]|[^\s\[\]{}",:]+')


def typed_json(document: bytes, type_list: str) -> str:
    """A JSON document with its typed values, as SQL."""
    wanted = {}
    for item in type_list.split(","):
        found = TYPE_ITEM.fullmatch(item)
        if found is None:
            raise NotWhole("a type list of JSON values that cannot be read")
        wanted[found[1] or "$", int(found[2] or 1)] = found[3], int(found[4] or -1)
    pairs = [(path, typed_value(text, *wanted[place])) for place, path, text in json_values(document) if place in wanted]
    if len(pairs) != len(wanted):
        raise NotWhole("a type list that does not belong to its JSON document")
    if pairs[0][0] == "$":
        return "JSON_EXTRACT(JSON_ARRAY(" + pairs[0][1] + "), '$[0]')"
    changes = ",".join("_utf8mb4 x'" + path.encode().hex() + "'," + value for path, value in pairs)
    return "JSON_SET(_utf8mb4 x'" + document.hex() + "'," + changes + ")"


def json_values(document: bytes) -> Iterator[tuple[tuple[str, int], str, str]]:
    """(place, path, text) of every value that is no object or array. Members (`.`) and elements (`[`) are counted apart:
    container by container as these begin, in each all its values one after the other."""
    sizes: dict[str, list[int]] = {".": [], "[": [], "$": []}  # of each container, in tokens: an object's keys count too
    opened: list[tuple[str, int, list[str]]] = []
    found = []
    for token in json_tokens(document):
        if token in b"]}":
            opened.pop()
            continue
        kind, number, count, path = "$", 0, 1, "$"
        if opened:
            kind, number, key = opened[-1]
            sizes[kind][number] += 1
            if kind == "." and sizes[kind][number] % 2:
                key[:] = [token.decode()]
                continue
            count = sizes[kind][number] // WIDTH[kind]
            path += "".join("." + name[0] if name else f"[{sizes[one][n] - 1}]" for one, n, name in opened)
        if token in b"[{":
            inner = "[" if token == b"[" else "."
            opened.append((inner, len(sizes[inner]), []))
            sizes[inner].append(0)
        else:
            found.append((kind, number, count, path, json.loads(token) if token[:1] == b'"' else token.decode()))
    before = {kind: [0, *itertools.accumulate(size // WIDTH[kind] for size in sizes[kind])] for kind in sizes}
    for kind, number, count, path, text in found:
        yield (kind, before[kind][number] + count), path, text


def json_tokens(document: bytes) -> Iterator[bytes]:
    """Brackets, strings with their quotes, and bare words of a document the server printed."""
    position = 0
    while True:
        match = JSON_TOKEN.search(document, position)
        if match is None:
            return
        position = match.end()
        while match[0] == b'"' and document[position : position + 1] not in (b'"', b""):
            position += 2 if document[position : position + 1] == b"\\" else 1
        position += match[0] == b'"'
        yield document[match.start() : position]


def typed_value(text: str, kind: str, number: int) -> str:
    """The SQL of one typed value."""
    if kind not in "duiatmsb" or not kind or not text.isascii() or "'" in text or "\\" in text:
        raise NotWhole("a typed JSON value of an unknown kind")
    if kind == "d":
        whole, _, fraction = text.lstrip("-").partition(".")
        if len(fraction) > 30 or len(whole) + len(fraction) > 65:
            return text
        if number == -(-len(whole) // 9) * 4:
            return f"CAST('{text}' AS DECIMAL(65,{len(fraction)}))"
        return f"JSON_VALUE(JSON_ARRAY('{text}'),'$[0]' RETURNING DECIMAL(65,{len(fraction)}))"
    if kind == "b":
        data = base64.b64decode(text.partition(":")[2].partition(":")[2])
        if number != 16:
            return "x'" + data.hex() + "'"
        return json_column(f"CAST({int.from_bytes(data, 'big')} AS UNSIGNED)", f"BIT({8 * len(data)})")
    if kind == "s":
        return json_column(f"'{text}'", "TIMESTAMP(6)")
    return f"CAST('{text}' AS {dict(u='UNSIGNED', i='SIGNED', a='DATE', t='TIME(6)', m='DATETIME(6)')[kind]})"


def json_column(value: str, kind: str) -> str:
    return f"(SELECT c FROM JSON_TABLE(JSON_ARRAY({value}),'$[0]' COLUMNS (c {kind} PATH '$')) k)"


def row_values(payload: bytes, chunk: Chunk) -> str:
    """One row as `(value,value,...)`."""
    decoders = chunk.decoders
    count = len(decoders)
    offset = 1 + (count + 9) // 8
    nulls = int.from_bytes(payload[1:offset], "little") >> 2
    values = []
    try:
        for index in range(count):
            if nulls >> index & 1:
                values.append("NULL")
            else:
                value, offset = decoders[index](payload, offset)
                values.append(value)
    except (IndexError, struct.error) as exc:
        raise NotWhole("a row ends in the middle of a value") from exc
    if offset != len(payload):
        raise NotWhole(f"a row has {len(payload)} bytes, its values {offset}")
    for place in chunk.ends:
        if values[place] == FOREVER:
            values[place] = "@forever"
    for number, place in enumerate(chunk.typed, len(chunk.names)):
        if values[number] != "NULL":
            try:
                values[place] = typed_json(bytes.fromhex(values[place].split("'")[1]), values[number])
            except (ValueError, IndexError) as exc:
                raise NotWhole("a JSON document or its type list cannot be read: " + repr(exc)) from exc
    return f"({','.join(values[: len(chunk.names)])})"


def identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def insert_statements(chunk: Chunk, rows: Iterator[bytes], *, schema: str, max_bytes: int) -> Iterator[str]:
    """INSERT statements of at most about `max_bytes`, at least one row each."""
    columns = ",".join(identifier(name) for name in chunk.names)
    start = f"INSERT INTO {identifier(schema)}.{identifier(chunk.table)} ({columns}) VALUES\n"
    batch: list[str] = []
    size = len(start)
    for payload in rows:
        values = row_values(payload, chunk)
        if batch and size + len(values) + 2 > max_bytes:
            yield start + ",\n".join(batch) + ";\n"
            batch, size = [], len(start)
        batch.append(values)
        size += len(values) + 2
    if batch:
        yield start + ",\n".join(batch) + ";\n"


def chunks(source: Source) -> Iterator[Chunk]:
    """The heads of all chunks. Read the rows of each before the next is asked for."""
    empty = True
    while source.start():
        empty = False
        yield read_head(source)
    if empty:
        raise NotWhole("the input is empty; did age or zstd fail?")


def print_sql(source: Source, options: argparse.Namespace) -> None:
    write = sys.stdout.write
    write(PREAMBLE)
    try:
        for chunk in chunks(source):
            rows = read_rows(source)
            if options.table in (None, chunk.name):
                schema = options.into or chunk.schema
                for statement in insert_statements(chunk, rows, schema=schema, max_bytes=options.max_bytes):
                    write(statement)
            for _ in rows:
                pass  # the rows of a table that was not asked for
    except NotWhole:
        write(ALARM)
        raise


def print_list(source: Source, options: argparse.Namespace) -> None:
    for chunk in chunks(source):
        count = sum(1 for _ in read_rows(source))
        if options.table in (None, chunk.name):
            sys.stdout.write(f"{chunk.name} {count}\n")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="reader-1.py", description="SQL from the row chunks of a kpbackup repository",
        epilog="Standard input: one data object after `age -d | zstd -d`. Standard output: SQL for mariadb or mysql.",
    )
    parser.add_argument("what", nargs="?", choices=("sql", "list"), default="sql", help="INSERTs (default), or what is there")
    parser.add_argument("--table", metavar="SCHEMA.TABLE", help="only this table")
    parser.add_argument("--into", metavar="SCHEMA", help="write into this database instead of the one the rows came from")
    parser.add_argument("--max-bytes", type=int, default=DEFAULT_STATEMENT_BYTES, help="of a statement (default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """The exit status: 0 when everything was read and printed, 1 when not, 2 for a wrong option."""
    options = parse_arguments(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        (print_sql if options.what == "sql" else print_list)(Source(sys.stdin.buffer), options)
        sys.stdout.flush()
    except NotWhole as exc:
        sys.stdout.flush()
        sys.stderr.write(f"kpbackup reader: error: {exc}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains once more at exit
        sys.stderr.write("kpbackup reader: error: whoever reads the output stopped reading\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
