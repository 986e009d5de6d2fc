"""Whether a statement was executed, from what is defined before and after: decided, or left open."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup.mysql import direct_intent, query_event
from kpbackup.mysql.direct_intent import Decision, Intent

ABSENT, OLD, NEW = "", "old", "new"


def intent(text: str, *before: str, has_rows: bool = False) -> Intent:
    """The intent of a statement; `before` are the marks of its objects in their order."""
    query = query_event.QueryEvent(text.encode(), "shop", 1, 0, 0, 0, {4: b"\x2d\0\x2d\0\x2d\0"})
    found, names = direct_intent.read(query, place="b.000001:4", has_rows=has_rows, mariadb=True)
    keys = [json.dumps(name) for name in names] or [""]
    return dataclasses.replace(found, before=dict(zip(keys, before, strict=True)))


def decided(text: str, before: tuple[str, ...], after: tuple[str, ...], *, has_rows: bool = False) -> Decision:
    found = intent(text, *before, has_rows=has_rows)
    return direct_intent.decide(found, dict(zip(found.before, after, strict=True)))


@pytest.mark.parametrize(("text", "before", "after", "expected"), [
    ("CREATE TABLE t (id INT)", (ABSENT,), (ABSENT,), Decision.AGAIN),
    ("CREATE TABLE t (id INT)", (ABSENT,), (NEW,), Decision.DONE),
    ("CREATE TABLE IF NOT EXISTS t (id INT)", (OLD,), (OLD,), Decision.AGAIN),
    ("CREATE OR REPLACE TABLE t (id INT)", (OLD,), (ABSENT,), Decision.AGAIN),
    ("CREATE TABLE t (n INT DEFAULT (IF(1, REPLACE('a', 'b', 'c'), 2)))", (ABSENT,), (NEW,), Decision.DONE),
    ("DROP TABLE t", (OLD,), (OLD,), Decision.AGAIN),
    ("DROP TABLE t", (OLD,), (ABSENT,), Decision.DONE),
    ("DROP TABLE t, u", (OLD, OLD), (ABSENT, OLD), Decision.PARTLY),
    ("DROP TABLE t, u", (OLD, OLD), (ABSENT, ABSENT), Decision.DONE),
    ("DROP TABLE IF EXISTS t, u", (OLD, OLD), (ABSENT, OLD), Decision.AGAIN),
    ("ALTER TABLE t ADD COLUMN a INT, ADD KEY (a)", (OLD,), (OLD,), Decision.AGAIN),
    ("ALTER TABLE t ADD COLUMN a INT, ADD KEY (a)", (OLD,), (NEW,), Decision.DONE),
    ("ALTER TABLE t RENAME COLUMN a TO b", (OLD,), (OLD,), Decision.AGAIN),
    ("ALTER TABLE t DROP COLUMN a, CHANGE b a INT, ADD COLUMN b INT", (OLD,), (OLD,), Decision.UNKNOWN),
    ("ALTER TABLE t DROP COLUMN a, CHANGE b a INT, ADD COLUMN b INT", (OLD,), (NEW,), Decision.DONE),
    ("ALTER TABLE t DROP COLUMN a, CHANGE b a INT, ADD COLUMN b INT", ("old:7",), ("old:7",), Decision.UNKNOWN),
    ("ALTER TABLE t DROP COLUMN a, CHANGE b a INT, ADD COLUMN b INT", ("old:7",), ("old:8",), Decision.DONE),
    ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", (OLD,), (OLD,), Decision.UNKNOWN),
    ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", ("old:7,8",), ("old:7,8",), Decision.AGAIN),
    ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", ("old:7,8",), ("old:7,9",), Decision.DONE),
    ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", ("old:7,8",), (OLD,), Decision.UNKNOWN),
    ("ALTER TABLE t IMPORT TABLESPACE", ("old:7",), ("old:7",), Decision.UNKNOWN),
    ("RENAME TABLE t TO u, w TO t", ("old:7", ABSENT, "old:8", "old:7"), ("old:7", ABSENT, "old:8"), Decision.AGAIN),
    ("RENAME TABLE t TO u, w TO t", ("old:7", ABSENT, "old:8", "old:7"), ("old:8", "old:7", ABSENT), Decision.DONE),
    ("RENAME TABLE t TO u, w TO t", (OLD, ABSENT, OLD, OLD), (OLD, ABSENT, OLD), Decision.UNKNOWN),
    ("ALTER TABLE t ENGINE = InnoDB", (OLD,), (OLD,), Decision.AGAIN),
    ("ALTER TABLE t AUTO_INCREMENT = 100", (OLD,), (OLD,), Decision.AGAIN),
    ("ALTER TABLE t RENAME TO u", (OLD,), (ABSENT,), Decision.DONE),
    ("RENAME TABLE t TO u", (OLD, ABSENT), (OLD, ABSENT), Decision.AGAIN),
    ("RENAME TABLE t TO u", (OLD, ABSENT), (ABSENT, OLD), Decision.DONE),
    ("TRUNCATE TABLE t", (OLD,), (OLD,), Decision.AGAIN),
    ("CREATE INDEX i ON t (a)", (OLD,), (OLD,), Decision.AGAIN),
    ("DROP INDEX i ON t", (OLD,), (NEW,), Decision.DONE),
    ("CREATE DATABASE d", (ABSENT,), (NEW,), Decision.DONE),
    ("DROP DATABASE d", (OLD,), (OLD,), Decision.AGAIN),
    ("DROP DATABASE d", (OLD,), (ABSENT,), Decision.DONE),
    ("CREATE VIEW v AS SELECT REPLACE('a', 'b', 'c')", (ABSENT,), (NEW,), Decision.DONE),
    ("CREATE PROCEDURE p() SELECT 1", (OLD,), (NEW,), Decision.DONE),
    ("CREATE PROCEDURE p() SELECT 1", (OLD,), (OLD,), Decision.AGAIN),
    ("DROP EVENT e", (OLD,), (NEW,), Decision.DONE),
    ("GRANT SELECT ON *.* TO u", (OLD,), (OLD,), Decision.AGAIN),
    ("CREATE USER u", (ABSENT,), (ABSENT,), Decision.AGAIN),
    ("CREATE USER u", (ABSENT,), (NEW,), Decision.DONE),
    ("CREATE USER u, w", (ABSENT, ABSENT), (NEW, ABSENT), Decision.UNKNOWN),
    ("CREATE USER IF NOT EXISTS u", (OLD,), (OLD,), Decision.AGAIN),
    ("CREATE ROLE r", (ABSENT,), (NEW,), Decision.DONE),
    ("ALTER USER u IDENTIFIED BY 'x'", (OLD,), (OLD,), Decision.AGAIN),
    ("ALTER USER u IDENTIFIED BY 'x'", (OLD,), (NEW,), Decision.DONE),
    ("SET PASSWORD FOR u = 'x'", (OLD,), (NEW,), Decision.DONE),
    ("REVOKE SELECT ON *.* FROM u", (OLD,), (OLD,), Decision.AGAIN),
    ("REVOKE SELECT ON *.* FROM u", (OLD,), (NEW,), Decision.DONE),
    ("REVOKE SELECT ON *.* FROM u", (ABSENT,), (ABSENT,), Decision.UNKNOWN),
    ("REVOKE SELECT ON *.* FROM u, w", (OLD, OLD), (NEW, OLD), Decision.UNKNOWN),
    ("REVOKE ALL PRIVILEGES, GRANT OPTION FROM u, w", (OLD, OLD), (NEW, OLD), Decision.AGAIN),
    ("REVOKE ALL PRIVILEGES ON s.* FROM u, w", (OLD, OLD), (NEW, OLD), Decision.UNKNOWN),
    ("DROP USER u", (OLD,), (OLD,), Decision.AGAIN),
    ("DROP USER u", (OLD,), (ABSENT,), Decision.DONE),
    ("DROP USER u", (OLD,), (NEW,), Decision.UNKNOWN),
    ("RENAME USER u TO w", (OLD, ABSENT), (OLD, ABSENT), Decision.AGAIN),
    ("RENAME USER u TO w", (OLD, ABSENT), (ABSENT, NEW), Decision.DONE),
    ("RENAME USER u TO w", (OLD, ABSENT), (NEW, NEW), Decision.UNKNOWN),
    ("ANALYZE TABLE t", (OLD,), (OLD,), Decision.AGAIN),
    ("INSTALL SONAME 'x'", (OLD,), (OLD,), Decision.UNKNOWN),
])  # fmt: skip
def test_what_is_decided(text: str, before: tuple[str, ...], after: tuple[str, ...], expected: Decision) -> None:
    assert decided(text, before, after) is expected


def test_tables_that_swap_their_names_look_as_before() -> None:
    found = intent("RENAME TABLE a TO tmp, b TO a, tmp TO b", *_five(OLD, ABSENT, OLD))
    assert direct_intent.decide(found, found.before) is Decision.UNKNOWN


def _five(a: str, tmp: str, b: str) -> tuple[str, ...]:
    """The marks of the six names of a swap, without those that are named twice."""
    return (a, tmp, b, a, tmp, b)


@pytest.mark.parametrize(("text", "before", "after", "expected"), [
    ("CREATE TABLE t (id INT)", ABSENT, ABSENT, Decision.AGAIN),
    ("CREATE TABLE t (id INT)", ABSENT, direct_intent.EMPTY, Decision.DONE),
    ("CREATE TABLE t (id INT)", ABSENT, direct_intent.ROWS, Decision.WHOLE),
    ("CREATE TABLE t (id INT)", ABSENT, "other", Decision.UNKNOWN),
    ("CREATE OR REPLACE TABLE t (id INT)", direct_intent.ROWS, direct_intent.ROWS, Decision.UNKNOWN),
])  # fmt: skip
def test_a_table_made_of_a_query_has_all_rows_or_none(text: str, before: str, after: str, expected: Decision) -> None:
    assert decided(text, (before,), (after,), has_rows=True) is expected


def test_what_is_left_of_a_drop() -> None:
    query = query_event.QueryEvent("DROP TABLE t, `ü`".encode(), "shop", 1, 0, 0, 0, {4: b"\x2d\0\x2d\0\x2d\0"})
    found, names = direct_intent.read(query, place="b.000001:4", has_rows=False, mariadb=True)
    assert direct_intent.rest(found, names, query).decode() == "DROP TABLE IF EXISTS `shop`.`t`, `shop`.`ü`"


@given(st.text(max_size=200))
def test_any_text_is_an_intent_or_none(text: str) -> None:
    assert direct_intent.decode(text) is None
    found = dataclasses.replace(intent("DROP TABLE t", OLD), place=text)
    assert direct_intent.decode(found.encode()) == found
