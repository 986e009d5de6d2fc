"""Reports of check and copy: left create-only, read back as they were, worth nothing when they are not whole, released by age."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.pipeline import sign
from kpbackup.plan import retention
from kpbackup.repository import catalog, copy, layout, objects, prune, reports
from kpbackup.repository.binding import Repository
from kpbackup.repository.check import check
from kpbackup.storage import open_backend
from tests.conformance.conftest import CREATED
from tests.cut_off import CutOffBackend

FIGURES = {"objects": 9, "read_bytes": 70_400, "problems": 0}


def leave(repository: Repository, *, passed: bool = True, verb: str = "check", **figures: int) -> manifest.Report:
    return reports.leave(repository, verb, started_at=CREATED, passed=passed, figures=FIGURES | figures)


def latest(repository: Repository, verb: str = "check") -> reports.Latest:
    return reports.read_latest(repository)[verb]


def unsigned(repository: Repository) -> Repository:
    return dataclasses.replace(repository, signing_key=None)


def test_the_newest_report_and_the_newest_good_one_come_back(repository: Repository) -> None:
    assert reports.read_latest(repository) == {}
    first = leave(repository)
    assert latest(repository) == reports.Latest(reports.Left(first, True), reports.Left(first, True))
    failed = leave(unsigned(repository), passed=False, problems=2)
    leave(repository, verb="copy")
    found = latest(unsigned(repository))
    assert (found.newest, found.passed) == (reports.Left(failed, False), reports.Left(first, True))
    assert (failed.head.seq, failed.figures["problems"]) == (2, 2)
    assert [info.key for info in repository.backend.list("")][-3:] == [
        "reports/check/0000000001", "reports/check/0000000002", "reports/copy/0000000001"
    ]  # fmt: skip
    assert list(reports.problems(repository)) == []


def test_two_at_once_take_two_numbers(repository: Repository) -> None:
    """The number that is found free is taken before it is written to."""

    rival = [lambda: leave(repository, problems=7)]

    def overtake(number: int, key: str) -> str:
        if rival:
            rival.pop()()
        return ""

    slow = dataclasses.replace(repository, backend=CutOffBackend(repository.backend, refuse=overtake))
    assert leave(slow).head.seq == 2
    assert latest(repository).newest.report.figures["problems"] == 0


def resigned(repository: Repository, made: manifest.Report, key: str) -> bytes:
    moved = dataclasses.replace(made, head=dataclasses.replace(made.head, key=key))
    return objects.assemble(moved, sign.SigningKey.generate())


@pytest.mark.parametrize("way", ["flipped", "longer", "moved", "of another repository", "by a stranger"])
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_not_whole_says_nothing(repository: Repository, way: str, signed: bool) -> None:
    good = leave(repository)
    writer = repository if signed else unsigned(repository)
    made = leave(writer, passed=False)
    key, data = made.head.key, repository.backend.read(made.head.key)
    repository.backend.delete(key)
    if way == "flipped":
        data = data.replace(b'"passed":false', b'"passed":fulse' if not signed else b'"passed":true ')
    elif way == "longer":
        data += b"\n"
    elif way == "moved":
        key = layout.report("check", 7)
    elif way == "of another repository":
        other = dataclasses.replace(made, head=dataclasses.replace(made.head, repository="elsewhere"))
        key_of = repository.need_signing_key()
        data = objects.assemble(other, key_of) if signed else canonical.dumps(codec.encode(other)) + b"\n"
    else:
        data = resigned(repository, made, key)
    repository.backend.put_if_absent(key, data)
    assert latest(repository) == reports.Latest(reports.Left(good, True), reports.Left(good, True))
    found = [where for where, _ in reports.problems(repository)]
    assert found == ([] if way == "by a stranger" else [key])
    if way != "by a stranger":
        assert key in [one.key for one in check(repository).problems]


def test_prune_releases_old_ones_but_never_what_is_shown(repository: Repository) -> None:
    good, *bad = leave(repository), *(leave(repository, passed=False) for _ in range(3))
    policy, now = retention.Policy(days=1, complete_chains=1, grace_period=timedelta()), good.head.created_at
    found = catalog.read_catalog(repository)
    for later, left in ((timedelta(hours=1), 4), (timedelta(days=2), 2)):
        plan = retention.plan_prune(found, policy, now + later)
        prune.execute(repository, found, plan, policy, now + later)
        assert len([*repository.backend.list(layout.REPORTS)]) == left
    assert latest(repository).newest.report == bad[-1]
    assert latest(repository).passed == reports.Left(good, True)
    assert leave(repository).head.seq == 5


def test_a_copy_has_its_own_ones(repository: Repository, tmp_path: Any) -> None:
    leave(repository, passed=False)
    target = open_backend(f"file://{tmp_path}/copy")
    assert copy.copy(repository, target, holder="test").problems == ()
    assert [*target.list(layout.REPORTS)] == []


def test_a_store_that_takes_nothing_is_told(repository: Repository) -> None:
    closed = dataclasses.replace(repository, backend=CutOffBackend(repository.backend, refuse=lambda number, key: "before"))
    with pytest.raises(errors.StorageError):
        leave(closed)
    assert reports.read_latest(repository) == {}
