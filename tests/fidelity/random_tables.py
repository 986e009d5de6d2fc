"""Random tables as hypothesis strategies: columns of any type with any values of it, keys, odd names, as SQL.

Values are written as hex or as numbers, so that no rule of quoting is shared with what is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fidelity.scenes import Kind

Values = st.SearchStrategy[str]


@dataclass(frozen=True)
class Type:
    """A column type and SQL for its values; `key` is what a key part of it looks like after the name, None for none."""

    sql: str
    values: Values
    key: str | None = ""


def _hex(data: bytes) -> str:
    return f"x'{data.hex()}'"


def _text(charset: str, *, size: int) -> Values:
    codec = {"utf8mb4": "utf-8", "latin1": "cp1252", "utf16": "utf-16-be"}[charset]
    letters = st.characters(codec=codec, exclude_categories=["Cs"])
    return st.text(letters, max_size=size).map(lambda text: f"_{charset} x'{text.encode(codec).hex()}'")


def _integers(bits: int, *, signed: bool) -> Values:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high).map(str)


def _decimal(digits: int, scale: int) -> Values:
    def shown(number: int) -> str:
        text = str(abs(number)).rjust(scale + 1, "0")
        return f"{'-' if number < 0 else ''}{text[: len(text) - scale]}.{text[len(text) - scale :]}"

    return st.integers(-(10**digits) + 1, 10**digits - 1).map(shown)


def _time(hours: int) -> Values:
    parts = (st.sampled_from(("", "-")), st.integers(0, hours), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999))
    return st.tuples(*parts).map(lambda t: f"'{t[0]}{t[1]}:{t[2]:02d}:{t[3]:02d}.{t[4]:06d}'")


def _real(number: float) -> str:
    return repr(number) if "e" in repr(number) else f"{number!r}e0"


_MOMENTS = st.datetimes().map(lambda moment: f"'{moment.isoformat(sep=' ')}'")
_DAYS = st.tuples(st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31)).map(
    lambda day: f"'{day[0]:04d}-{day[1]:02d}-{day[2]:02d}'"
)
_DOCUMENTS = st.recursive(
    st.sampled_from(("1", "null", "1.5", '"x"', "true")),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"), max_leaves=6,
)


def types(kind: Kind) -> list[Type]:
    found = [
        *(Type(name, _integers(bits, signed=True)) for name, bits in (("tinyint", 8), ("mediumint", 24), ("bigint", 64))),
        *(
            Type(f"{name} unsigned", _integers(bits, signed=False))
            for name, bits in (("smallint", 16), ("int", 32), ("bigint", 64))
        ),
        Type("double", st.floats(allow_nan=False, allow_infinity=False).map(_real)),
        Type("float", st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False).map(_real)),
        Type("decimal(65,30)", _decimal(65, 30)), Type("decimal(9,4)", _decimal(9, 4)),
        Type("bit(64)", _integers(64, signed=False)), Type("bit(5)", st.integers(0, 31).map(str)),
        Type("year", st.sampled_from(("0", "1901", "2155", "2024"))), Type("date", _DAYS), Type("datetime(6)", _MOMENTS),
        Type("time(6)", _time(837)), Type("time", _time(837)),
        Type("enum('a','\u00e9','')", st.integers(1, 3).map(str)), Type("set('a','\u00e9','c')", st.integers(0, 7).map(str)),
        Type("varchar(60)", _text("utf8mb4", size=60), "(10)"),
        Type("varchar(60) CHARACTER SET latin1", _text("latin1", size=60), "(10)"),
        Type("varchar(30) CHARACTER SET utf16", _text("utf16", size=15), "(7)"),
        Type("char(20)", _text("utf8mb4", size=20), "(5)"),
        Type("text", _text("utf8mb4", size=300), "(20)"), Type("varbinary(80)", st.binary(max_size=80).map(_hex), "(30)"),
        Type("binary(8)", st.binary(max_size=8).map(_hex)), Type("blob", st.binary(max_size=400).map(_hex), "(9)"),
        Type("json", _DOCUMENTS.map(lambda text: f"'{text}'"), None),
        Type("point", st.tuples(st.integers(-180, 180), st.integers(-90, 90)).map(lambda p: f"POINT({p[0]},{p[1]})"), None),
    ]
    if kind.mariadb:
        found += [
            Type("uuid", st.uuids().map(lambda one: f"'{one}'")), Type("inet6", st.ip_addresses(v=6).map(lambda one: f"'{one}'")),
        ]
    return found


_LETTERS = st.characters(codec="utf-8", max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc", "Z"])
NAMES = st.text(_LETTERS, min_size=1, max_size=12)


@st.composite
def tables(draw: Callable[..., object], kind: Kind, number: int) -> list[str]:
    """CREATE TABLE and INSERTs of one table, keyed by a column of its own, by drawn ones or not at all."""
    column = st.tuples(NAMES, st.sampled_from(types(kind)), st.booleans())
    drawn = draw(st.lists(column, min_size=1, max_size=9, unique_by=lambda one: one[0].casefold()))
    assert isinstance(drawn, list)
    columns = [(f"c{place} {name}".strip().replace("`", "``"), one, null) for place, (name, one, null) in enumerate(drawn)]
    parts = [f"`{name}` {one.sql}{'' if null else ' NOT NULL'}" for name, one, null in columns]
    first = draw(st.sampled_from(("id int PRIMARY KEY", "id bigint unsigned NOT NULL", "id int AUTO_INCREMENT UNIQUE")))
    keys = [f"KEY `k {name}`(`{name}`{one.key})" for name, one, _ in columns if one.key is not None and draw(st.booleans())]
    rows = []
    for place in range(draw(st.integers(0, 12))):  # type: ignore[call-overload]
        cells = [draw(st.one_of(st.just("NULL"), one.values) if null else one.values) for _, one, null in columns]
        rows.append(f"({place + 1},{','.join(map(str, cells))})")
    name = f"`t{number}`"
    found = [f"CREATE TABLE {name} ({first}, {', '.join([*parts, *keys])})"]
    return found + [f"INSERT IGNORE INTO {name} VALUES {row}" for row in rows]


def databases(kind: Kind, *, count: int) -> st.SearchStrategy[list[list[str]]]:
    return st.tuples(*(tables(kind, number) for number in range(count))).map(list)
