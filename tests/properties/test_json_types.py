"""Where typed JSON values are: three ways through a document's text against a model that follows the definition."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.mysql import json_rebuild, json_types
from kpbackup.mysql.json_types import Kind, TypedValue
from kpbackup.repository import reader

_KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.sampled_from(["", "$", "*", "**", "a.b", '"', "\\", "\\\\", '\\"', "{", "[0]", "]", ",", ":", "\n", "\0", "a b"]),
)
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _KEYS)
_DOCUMENTS = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=25
)


def places(document: Any) -> list[tuple[str, str, Any]]:
    """(place, path, value) of every value, as format.md defines places: the order of `$**.*` and of `$**[*]`."""
    if not isinstance(document, dict | list):
        return [("$", "$", document)]
    found: list[tuple[str, str, Any]] = []
    counts = {".": 0, "[": 0}

    def visit(container: Any, path: str) -> None:
        is_object = isinstance(container, dict)
        items = list(container.items()) if is_object else list(enumerate(container))
        mark = "." if is_object else "["
        inner = []
        for name, value in items:
            counts[mark] += 1
            here = path + ("." + json.dumps(name, ensure_ascii=False) if is_object else f"[{name}]")
            found.append((f"{mark}{counts[mark]}", here, value))
            inner.append((value, here))
        for value, here in inner:
            if isinstance(value, dict | list):
                visit(value, here)

    visit(document, "$")
    return found


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@given(document=_DOCUMENTS, data=st.data())
def test_every_way_finds_the_values_the_list_names(document: Any, data: st.DataObject) -> None:
    scalars = [entry for entry in places(document) if not isinstance(entry[2], dict | list) and not isinstance(entry[2], bool)]
    scalars = [entry for entry in scalars if entry[2] is not None]
    chosen = [entry for entry in scalars if data.draw(st.booleans())]
    if not chosen:
        return
    text = json.dumps(document, ensure_ascii=False).encode()
    type_list = ",".join(f"{place}a" for place, _, _ in chosen).encode()
    expected = {(path, text_of(value)) for _, path, value in chosen}
    for large_bytes in (json_types.LARGE_BYTES, 0):
        found = json_types.typed_values(text, type_list, large_bytes=large_bytes)
        assert {(value.path, value.text) for value in found} == expected
        assert len(found) == len(chosen)
        assert all(value.kind == Kind("a") for value in found)
    by_reader = {f"{mark}{number}" if mark != "$" else "$": entry for (mark, number), *entry in reader.json_values(text)}
    assert {tuple(by_reader[place]) for place, _, _ in chosen} == expected


@pytest.mark.parametrize("large_bytes", [json_types.LARGE_BYTES, 0])
@pytest.mark.parametrize("type_list", [b".3a", b"[1a", b"$a", b".0a", b".1", b".1x", b"", b".1b999", b".1b", b".1a,,", b"a"])
def test_a_list_that_does_not_belong_to_the_document_is_refused(type_list: bytes, large_bytes: int) -> None:
    with pytest.raises(errors.IntegrityError):
        json_types.typed_values(b'{"a": {"b": 1}}', type_list, large_bytes=large_bytes)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind("d", 1), "1.x"), (Kind("d", 1), ""), (Kind("d", 1), "."), (Kind("u"), "-1"), (Kind("s"), "2024-01-01x"),
        (Kind("b", 15), "base64:type252:AAAA"), (Kind("b", 15), "AAAA"), (Kind("b", 15), "base64:type15:A'A="),
    ],
)
def test_a_text_that_is_not_of_its_kind_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(errors.IntegrityError):
        json_rebuild.rebuild(TypedValue("$", kind, text))


def test_values_that_cannot_be_listed_are_counted_by_column() -> None:
    texts = ["Truncated incorrect INTEGER value: 'kpbackup json 1'"] * 3 + ["... 'kpbackup json 0'", "Truncated: 'other 1'"]
    counts = json_types.unkept(("a", "b"), texts)
    assert counts == {"b": 3, "a": 1}
    told = list(json_types.warnings({("s", "t", column): count for column, count in counts.items()}))
    assert len(told) == 2 and told[1].startswith("table s.t: 3 JSON values in b ")
