"""Canonical JSON and the strict reading of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import canonical, codec

NOON = datetime(2026, 5, 1, 12, 0, 0, 120_000, tzinfo=UTC)


@dataclass(frozen=True)
class Inner:
    name: str
    size: int


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...]
    words: dict[str, str]
    at: datetime
    maybe: int | None
    flag: bool = False
    note: str = "none"


VALUE = Outer(Inner("ü", 1), (Inner("b", 2), Inner("c", 3)), {"z": "1", "a": "2"}, NOON, None, True, "x")
DATA: dict[str, Any] = codec.encode(VALUE)


def decoded(**changes: Any) -> Outer:
    return codec.decode(Outer, {**DATA, **changes}, what="thing")


def test_there_and_back() -> None:
    line = canonical.dumps(DATA)
    assert line == (
        '{"at":"2026-05-01T12:00:00.120000Z","flag":true,"inner":{"name":"ü","size":1},'
        '"many":[{"name":"b","size":2},{"name":"c","size":3}],"maybe":null,"note":"x","words":{"a":"2","z":"1"}}'
    ).encode()
    assert codec.decode(Outer, canonical.loads(line, what="x"), what="x") == VALUE


def test_unknown_keys_are_ignored_and_defaults_fill_in() -> None:
    assert decoded(later={"x": [1]}, inner={"name": "ü", "size": 1, "colour": 3}) == VALUE
    less = {key: value for key, value in DATA.items() if key not in ("flag", "note")}
    found = codec.decode(Outer, less, what="x")
    assert (found.flag, found.note) == (False, "none")


@pytest.mark.parametrize("key", ["inner", "many", "words", "at", "maybe"])
def test_a_missing_key_without_a_default_is_refused(key: str) -> None:
    with pytest.raises(errors.IntegrityError, match=f"thing lacks '{key}'"):
        codec.decode(Outer, {name: value for name, value in DATA.items() if name != key}, what="thing")


@pytest.mark.parametrize("changes", [
    {"inner": None}, {"inner": []}, {"inner": {"name": "x", "size": "1"}}, {"inner": {"name": "x", "size": True}},
    {"inner": {"name": "x", "size": 1.0}}, {"inner": {"name": 1, "size": 1}}, {"many": {}}, {"many": None}, {"many": "b"},
    {"many": [1]}, {"words": []}, {"words": {"a": 1}}, {"words": {"a": None}}, {"at": 5}, {"at": None}, {"maybe": "1"},
    {"maybe": False}, {"maybe": 1.0}, {"flag": 1}, {"flag": None}, {"note": None},
], ids=str)
def test_another_type_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.IntegrityError, match=r"^thing: thing\.\w+(\.\w+)? must be|^thing: thing\.\w+ must be"):
        decoded(**changes)


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_a_document_that_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(errors.IntegrityError):
        codec.decode(Outer, document, what="thing")


@pytest.mark.parametrize("text", [
    "2026-05-01T12:00:00Z", "2026-05-01T12:00:00.12Z", "2026-05-01T12:00:00.120000", "2026-05-01T12:00:00.120000+00:00",
    "2026-5-1T12:00:00.120000Z", "2026-05-01 12:00:00.120000Z", "2026-13-01T12:00:00.120000Z", " 2026-05-01T12:00:00.120000Z", "",
])
def test_a_time_has_one_spelling(text: str) -> None:
    with pytest.raises(errors.IntegrityError):
        decoded(at=text)


def test_times_are_written_in_utc() -> None:
    assert canonical.time_text(NOON.astimezone(timezone(timedelta(hours=9)))) == "2026-05-01T12:00:00.120000Z"
    early = datetime(33, 1, 2, tzinfo=UTC)
    assert canonical.time_value(canonical.time_text(early)) == early
    with pytest.raises(ValueError, match="without a zone"):
        canonical.time_text(datetime(2026, 5, 1))  # noqa: DTZ001 - the point of it


@pytest.mark.parametrize("value", [1.0, [1.5], {"a": {"b": (0.0,)}}, float("nan")])
def test_floats_are_not_written(value: object) -> None:
    with pytest.raises(ValueError, match="float"):
        canonical.dumps(value)


@pytest.mark.parametrize("value", [b"x", object(), {1, 2}, 1.5])
def test_what_json_has_no_form_for_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError):
        codec.encode(value)


def test_bytes_that_are_no_text_come_back() -> None:
    line = canonical.dumps({"a": "é\udce9\udcff'", "b": "\\udce9"})
    assert line == b'{"a":"\xc3\xa9\\udce9\\udcff\'","b":"\\\\udce9"}'
    assert canonical.loads(line, what="it") == {"a": "é\udce9\udcff'", "b": "\\udce9"}


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"1", b"null", b'"x"', b'{"a":1} {}', b'{"a":1,"a":1}', b'{"x":{"a":1,"b":2,"a":3}}', b'{"a":1.0}',
    b'{"a":1e3}', b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":"\xff"}', b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"),
    b'{"a":' + b"[" * 100_000, b"{'a':1}", b'{"a":' + b"9" * 5_000 + b"}",
], ids=lambda data: repr(data[:20]))
def test_what_is_not_canonical_json_is_refused(data: bytes) -> None:
    with pytest.raises(errors.IntegrityError, match="^that thing is not"):
        canonical.loads(data, what="that thing")
