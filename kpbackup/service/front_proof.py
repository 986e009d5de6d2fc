"""Sections of the page that tell what was proven and what is to come: last check, recoveries step by step, forecast. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from xml.etree.ElementTree import Element

from kpbackup import quantities
from kpbackup.service import forecast_text
from kpbackup.service.html import element
from kpbackup.service.page_parts import moment, seconds, section, table
from kpbackup.service.runs import Run
from kpbackup.service.status import Status
from kpbackup.service.trust import Copy


def sections(status: Status, zone: tzinfo, now: datetime) -> Iterator[Element]:
    """Recoveries, check and copies, forecast."""
    yield section("recoveries", "Recoveries and drills", list(_recoveries(status, zone)))
    yield section("checks", "Checks and copies", list(_checks(status, zone, now)))
    if status.forecast is not None:
        yield section("forecast", "Forecast", list(_forecast(status, zone)))


def _recoveries(status: Status, zone: tzinfo) -> Iterator[Element]:
    rows = [
        (one.run, one.kind, one.backup_set, moment(one.finished_at, zone), seconds(one.measured_rto_s))
        for one in sorted(status.measured_rto.values(), key=lambda one: one.finished_at, reverse=True)
    ]
    if rows:
        yield table(("run", "kind", "set", "finished", "measured RTO"), rows, label="measured recoveries")
    else:
        yield element("p", {"class": "note warning"}, "None yet: no backup of this repository has been restored.")
    if status.runs:
        yield element("h3", "Step by step")
    for number, run in enumerate(status.runs):
        yield _run(run, zone, is_open=number == 0)


def _run(run: Run, zone: tzinfo, *, is_open: bool) -> Element:
    told = f"{run.kind} {run.name}: {run.state}" + ("" if run.signed else ", journal not signed")
    rows = [
        (step.name, moment(step.started_at, zone), quantities.format_duration(step.took) if step.took is not None else "",
         step.result, step.note)
        for step in run.steps
    ]  # fmt: skip
    aside = element("p", {"class": "aside"}, f"to {run.target or '?'}, begun {moment(run.started_at, zone)}")
    steps = table(("step", "begun", "took", "result", "details"), rows, label=f"steps of {run.name}") if rows else ""
    return element("details", {"open": "open"} if is_open else {}, element("summary", told), aside, steps)


def _checks(status: Status, zone: tzinfo, now: datetime) -> Iterator[Element]:
    check, copies = status.trust.last_check, status.trust.copies
    if check is None:
        yield element("p", {"class": "note warning"}, "Nothing was checked yet: run ", element("code", "kpbackup check"), ".")
    else:
        result = "nothing wrong" if check.passed else f"{check.problems} problems" if check.problems else "it could not finish"
        read = f"{check.read_objects} of {check.objects} objects read, {quantities.format_size(check.read_bytes)}"
        signed = "" if check.signed else " (report not signed)"
        is_old = now - check.ended_at > status.trust.limits.check
        yield element(
            "p", element("strong", {"class": "critical" if not check.passed else "warning" if is_old else "ok"}, result),
            f" {moment(check.ended_at, zone)}, {quantities.format_duration(now - check.ended_at)} ago; {read}{signed}",
        )
    rows = [
        (one.name, moment(one.recovery_point, zone) if one.recovery_point else "nothing",
         moment(one.copied_at, zone) if one.copied_at else "never", _copy_state(one, now))
        for one in copies
    ]  # fmt: skip
    if rows:
        yield table(("copy", "recovery point", "brought up to date", "state"), rows)


def _copy_state(copy: Copy, now: datetime) -> str:
    if copy.problem or copy.recovery_point is None:
        return copy.problem or "empty"
    age, allowed = (quantities.format_duration(one) for one in (max(now - copy.recovery_point, timedelta()), copy.max_age))
    return f"{age} behind, allowed {allowed}"


def _forecast(status: Status, zone: tzinfo) -> Iterator[Element]:
    found = status.forecast
    assert found is not None
    yield element("p", {"class": "aside"}, forecast_text.basis(found))
    yield table(forecast_text.COLUMNS, forecast_text.rows(found), label="forecast", right=frozenset(forecast_text.COLUMNS[1:4]))
    if told := forecast_text.told(found, zone):
        yield element("p", {"class": "warning" if found.warns else ""}, told)
    if found.unknown:
        yield element("ul", [element("li", f"unknown: {one}") for one in found.unknown])
