"""The page at `/`: how far back can be restored, how well the promises are kept, and the exact command for a moment.

A pure function of the status. It works without script; `page.js` only lets a click on the line fill in the moment. No address
outside the process is named, and the policy sent with it forbids everything but the page's own styles and script.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from hashlib import sha256
from importlib import resources
from xml.etree.ElementTree import Element

from kpbackup import __version__, errors, quantities
from kpbackup.model import times
from kpbackup.plan.line import Line, lay_out
from kpbackup.service import front_proof, html, http
from kpbackup.service.html import element
from kpbackup.service.page_parts import SHOWN, seconds, table
from kpbackup.service.page_parts import moment as show_moment
from kpbackup.service.status import Level, Status

_ASSETS = resources.files("kpbackup.service").joinpath("assets")
STYLES = _ASSETS.joinpath("page.css").read_text(encoding="utf-8")
# the styles stand in the page, allowed by their hash: a file of their own would hold the first paint up for another answer
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLES.encode()).digest()).decode()}'; script-src 'self';"
    " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MARKS = 200  # newest marks on the line
TICKS = 4  # parts of the line that are told apart by a date
_WIDTH, _HEIGHT, _TOP, _BAR = 1000, 64, 14, 26
_NARROWEST = 3  # of 1000: a window of seconds in a line of months can still be seen and hit


def answer(
    status: Status | None, *, label: str, problem: str, zone: tzinfo, now: datetime, query: Mapping[str, str]
) -> http.Answer:
    """The page as the web server gives it, with its policy."""
    root = page(status, label=label, problem=problem, zone=zone, now=now, query=query)
    return http.Answer(200, "text/html; charset=utf-8", html.document(root), (("Content-Security-Policy", POLICY),))


def assets() -> http.Pages:
    """Path -> script."""
    body = _ASSETS.joinpath("page.js").read_bytes()
    return {"/page.js": lambda query: http.Answer(200, "text/javascript; charset=utf-8", body)}


def page(status: Status | None, *, label: str, problem: str, zone: tzinfo, now: datetime, query: Mapping[str, str]) -> Element:
    """The whole document. Without a status (`None`: nothing was read yet) it says why (`problem`)."""
    body: list[Element] = [_header(status, label)]
    if problem:
        body.append(element("p", {"class": "note critical", "role": "alert"}, problem))
    if status is not None:
        body.append(element("main", _sections(status, zone, now, query)))
    body.append(_footer())
    return element("html", {"lang": "en"}, _head(label), element("body", body))


def _head(label: str) -> Element:
    return element(
        "head",
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", f"kpbackup: {label}"),
        element("link", {"rel": "icon", "href": "data:,"}),
        element("style", STYLES),
        element("script", {"src": "/page.js", "defer": "defer"}, ""),
    )


def _header(status: Status | None, label: str) -> Element:
    level = status.level if status is not None else Level.UNKNOWN
    return element(
        "header", element("h1", "kpbackup ", element("small", label)),
        element("p", {"class": f"level {_word(level)}", "role": "status"}, _word(level)),
    )


def _sections(status: Status, zone: tzinfo, now: datetime, query: Mapping[str, str]) -> Iterator[Element]:
    line = _line(status, zone, now)
    yield element("p", {"class": "aside"}, f"as of {show_moment(now, zone)}")
    yield _figures(status, zone, now)
    yield element("section", {"aria-labelledby": "reasons"}, element("h2", {"id": "reasons"}, "Judgement"), _reasons(status))
    yield element("section", {"aria-labelledby": "windows"}, _windows(status, line, zone))
    if line is not None:
        yield element("section", {"aria-labelledby": "restore"}, _restore(line, zone, now, query))
    yield element("section", {"aria-labelledby": "jobs"}, element("h2", {"id": "jobs"}, "Jobs"), _jobs(status, zone, now))
    yield element("section", {"aria-labelledby": "sets"}, element("h2", {"id": "sets"}, "Backup sets"), _sets(status, zone))
    yield from front_proof.sections(status, zone, now)


def _figures(status: Status, zone: tzinfo, now: datetime) -> Element:
    point, achieved = status.recovery_point, status.achieved_rpo_at(now)
    measured = (status.measured_rto.get(kind) for kind in ("restore", "database", "drill"))
    full = next((one for one in measured if one is not None), None)
    took = timedelta(seconds=full.measured_rto_s) if full is not None else None
    promised = status.objectives
    return element(
        "section", {"class": "figures", "aria-label": "figures"},
        _figure("Recovery point", show_moment(point, zone) if point else "none", "the newest moment that can be restored to"),
        _against("Achieved RPO", achieved, promised.rpo), _against("Measured RTO", took, promised.rto),
        _figure(
            "Stored", quantities.format_size(status.total_bytes),
            f"{quantities.count(len(status.sets), 'set')}, {quantities.count(status.segments, 'segment')}",
        ),
    )


def _figure(name: str, value: str, note: str, *more: Element) -> Element:
    return element(
        "div", {"class": "figure"}, element("h2", name), element("p", {"class": "value"}, value), more,
        element("p", {"class": "aside"}, note),
    )


def _against(name: str, measured: timedelta | None, promised: timedelta) -> Element:
    told = f"promised {quantities.format_duration(promised)}"
    if measured is None:
        return _figure(name, "not measured yet", told)
    used = min(measured / promised, 1.0) if promised else 1.0
    meter = element(
        "meter",
        {"min": "0", "max": "1", "low": "0.5", "high": "0.99", "optimum": "0", "value": f"{used:.3f}"},
        {"aria-label": f"{name}, {told}"}, f"{used:.0%}",
    )
    return _figure(name, quantities.format_duration(measured), told, meter)


def _line(status: Status, zone: tzinfo, now: datetime) -> Line | None:
    events = [
        (one.backup_set.clock, "set", f"set {one.backup_set.name} of {show_moment(one.backup_set.clock, zone)}"
         + (f", proven by recovery {one.proven_by}" if one.proven_by else ", not restored yet"))
        for one in status.sets
    ]
    events += [
        (one.finished_at, one.kind, f"{one.kind} {one.run}, measured RTO {seconds(one.measured_rto_s)}")
        for one in status.measured_rto.values()
    ]
    return lay_out(status.windows, events[-MARKS:], now=now)


def _windows(status: Status, line: Line | None, zone: tzinfo) -> list[Element]:
    title = element("h2", {"id": "windows"}, "What can be restored")
    if line is None:
        return [title, element("p", {"class": "note critical"}, "Nothing: there is no backup set.")]
    rows = [
        (w.timeline, show_moment(w.start, zone), show_moment(w.end, zone), str(len(w.sets)), w.gap.reason if w.gap else "")
        for w in reversed(status.windows)
    ]
    rows_table = table(("timeline", "from", "to", "sets", "then"), rows)
    ends = element("p", {"class": "ends"}, (element("span", told) for told in _ticks(line, zone)))
    windows = element("details", element("summary", f"{len(rows)} windows as a table"), rows_table)
    return [title, _drawing(line, zone), ends, _legend(), windows]


def _ticks(line: Line, zone: tzinfo) -> Iterator[str]:
    """Both ends in full, and the days in between, evenly apart; a phone leaves those out."""
    yield show_moment(line.begin, zone)
    for part in range(1, TICKS) if line.end - line.begin > timedelta(days=TICKS) else ():
        yield f"{(line.begin + (line.end - line.begin) * part / TICKS).astimezone(zone):%m-%d}"
    yield show_moment(line.end, zone)


def _legend() -> Element:
    keys = [("window", "can be restored"), ("gap", "gap"), ("set", "backup set"), ("recovery", "recovery or drill")]
    return element("p", {"class": "legend"}, (element("span", {"class": f"key {kind}"}, told) for kind, told in keys))


def _drawing(line: Line, zone: tzinfo) -> Element:
    """The line as SVG; each window is a link that fills in its newest moment, so it is reached by keyboard too."""
    drawn: list[Element] = []
    for span in line.spans:
        left, width = _pixels(span.start), max((span.end - span.start) * _WIDTH, _NARROWEST)
        told = f"any moment from {show_moment(span.window.start, zone)} to {show_moment(span.window.end, zone)}"
        drawn.append(
            element(
                "a", {"href": f"/?at={times.utc_text(span.window.end)}", "aria-label": f"{told} can be restored"},
                _rectangle("window", left, width), element("title", told),
            )
        )
    for hole in line.holes:  # over the windows: one of minutes must be seen in a line of months
        width = (hole.end - hole.start) * _WIDTH
        look, told = ("gap", f"cannot be restored: {hole.reason}") if hole.reason else ("pending", "not archived yet")
        gap = _rectangle(look, _pixels(hole.start), max(width, _NARROWEST) if hole.reason else width)
        drawn.append(element("g", gap, element("title", told)))
    for mark in line.marks:
        drawn.append(element("g", _mark(mark.kind, _pixels(mark.place)), element("title", mark.told)))
    attributes = {
        "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "preserveAspectRatio": "none", "role": "group", "id": "line",
        "aria-label": f"recoverable windows from {show_moment(line.begin, zone)} to {show_moment(line.end, zone)}",
        "data-begin": f"{line.begin.timestamp():.3f}", "data-end": f"{line.end.timestamp():.3f}",
    }
    return element("svg", attributes, drawn)


def _rectangle(kind: str, left: float, width: float) -> Element:
    return element("rect", {"class": kind, "x": f"{left:.2f}", "y": str(_TOP), "width": f"{width:.2f}", "height": str(_BAR)})


def _mark(kind: str, at: float) -> Element:
    top, height = (_TOP - 6, _BAR + 12) if kind == "set" else (_TOP + _BAR + 4, 12)
    look, width = ("set", 2) if kind == "set" else ("recovery", 5)
    left = min(max(at - width / 2, 0), _WIDTH - width)
    return element("rect", {"class": look, "x": f"{left:.2f}", "y": str(top), "width": str(width), "height": str(height)})


def _pixels(place: float) -> float:
    return min(place * _WIDTH, _WIDTH - _NARROWEST)


def _restore(line: Line, zone: tzinfo, now: datetime, query: Mapping[str, str]) -> list[Element]:
    asked = query.get("at", "").strip() or times.utc_text(max(span.window.end for span in line.spans))
    name = str(zone)
    form = element(
        "form", {"method": "get", "action": "/"},
        element("label", {"for": "at"}, f"Moment (a time without a zone is {name}; -15m counts back from now)"),
        element("input", {"id": "at", "name": "at", "value": asked, "autocomplete": "off", "spellcheck": "false"}),
        element("button", {"type": "submit"}, "Show the command"),
    )
    return [element("h2", {"id": "restore"}, "Restore command"), form, *_answer(line, asked, zone, now)]


def _answer(line: Line, asked: str, zone: tzinfo, now: datetime) -> Iterator[Element]:
    try:
        moment = times.parse_moment(asked, zone, now=now)
    except errors.UsageError as exc:
        yield element("p", {"class": "note critical", "role": "alert"}, f"{exc.message}: {exc.hint}")
        return
    window = line.holding(moment)
    if window is None:
        near = " or ".join(show_moment(one, zone) for one in line.nearest(moment))
        told = f"{show_moment(moment, zone)} cannot be restored to. Nearest: {near}."
        yield element("p", {"class": "note critical", "role": "alert"}, told)
        return
    command = f"kpbackup restore --to {times.utc_text(moment)}"
    yield element("pre", element("code", {"id": "command"}, command))
    yield element(
        "p", {"class": "aside"}, "It shows its plan, with the last transaction included and the first one left out, and asks"
        " before it changes anything; --dry-run stops there. ", element("code", "kpbackup restore database"),
        " leaves the application alone.",
    )


def _reasons(status: Status) -> Element:
    listed = [
        element("li", element("strong", {"class": _word(one.level)}, _word(one.level)), f" {one.text}") for one in status.reasons
    ]
    return element("ul", listed)


def _jobs(status: Status, zone: tzinfo, now: datetime) -> Element:
    kinds = sorted({*status.last_success, *status.next_runs})
    rows = []
    for kind in kinds:
        last, following = status.last_success.get(kind), status.next_runs.get(kind)
        ago = f" ({quantities.format_duration(now - last)} ago)" if last is not None and last <= now else ""
        other = "all the time" if kind == "incremental" and status.continuous else "not scheduled"
        then = show_moment(following, zone) if following else other
        rows.append((kind, show_moment(last, zone) + ago if last else "never", then))
    return table(("kind", "last success", "next run"), rows)


def _sets(status: Status, zone: tzinfo) -> Element:
    rows = [
        (
            one.backup_set.name, "proven" if one.proven_by else "stored", show_moment(one.backup_set.clock, zone),
            f"{one.backup_set.totals.rows:,}", quantities.format_size(one.stored_bytes), quantities.format_duration(one.duration),
        )
        for one in reversed(status.sets[-SHOWN:])
    ]
    return table(("set", "state", "of", "rows", "stored", "took"), rows, right=frozenset({"rows", "stored", "took"}))


def _footer() -> Element:
    links = [("/metrics", "metrics"), ("/api/health", "health"), ("/api/health/ready", "readiness")]
    return element(
        "footer", element("p", f"kpbackup {__version__}"),
        element("nav", {"aria-label": "other paths"}, (element("a", {"href": path}, name) for path, name in links)),
    )


def _word(level: Level) -> str:
    return level.name.lower()
