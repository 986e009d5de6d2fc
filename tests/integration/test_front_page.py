"""The status page in a real browser: what it shows, without script and with it, by pointer and by keyboard."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from kpbackup.model import times
from kpbackup.plan import forecast as forecasts
from kpbackup.plan.schedule import Timing
from kpbackup.service import front, http, runs, trust
from kpbackup.service.status import Objectives, Recovery, Status, assess
from tests.unit.plain_histories import Source, catalog, when

LARGEST_BYTES = 100_000
PATIENCE_MS = 120_000
NOW = when(24 * 9)
ALARM = "<script>alert(1)</script><b>shop</b>"


RUNS = (
    runs.Run("20240509T010000Z-0d0d0d", "drill", "latest", when(24 * 8 + 20), "failed", False, (
        runs.StepTold("prepare", when(24 * 8 + 20), timedelta(seconds=2), "done"),
        runs.StepTold("database", when(24 * 8 + 20), timedelta(seconds=9), "failed", "RestoreMismatch, exit code 24"),
    )),
    runs.Run("20240505T020000Z-abc123", "restore", "2024-05-05T01:00:00Z", when(24 * 8 + 12), "finished", True, tuple(
        runs.StepTold(name, when(24 * 8 + 12), timedelta(seconds=31), "done", "37108 rows" if name == "database" else "")
        for name in ("prepare", "database", "deploy", "verify", "switch")
    )),
)  # fmt: skip


def broken() -> Status:
    """A week of nights with one gap, a proven set, and the archive an hour behind."""
    source = Source()
    for day in range(9):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 23)
    whole = source.history()
    kept = tuple(one for one in whole.segments if not when(4 * 24) <= one.head.created_at < when(4 * 24 + 12))
    assert len(kept) < len(whole.segments)
    found = catalog(dataclasses.replace(whole, segments=kept))
    name = found.histories[-1].sets[-1].name
    recoveries = (Recovery("20240505T020000Z-abc123", name, when(24 * 8 + 12), recovered=True, measured_rto_s=93.0),)
    prices, measured = forecasts.Prices(0.023, 0.005), forecasts.Measured("20240505T020000Z-abc123", "restore", 93.0, name)
    check = trust.Check(when(24 * 8 + 5), True, 70_400, 90, 9, 0, signed=False)
    copied = trust.Copy("offsite", timedelta(days=1), when(24 * 8), copied_at=when(24 * 8 + 1))
    return assess(
        found, recoveries, objectives=Objectives(timedelta(hours=4), timedelta(minutes=30), timedelta(days=35)), now=NOW,
        trust=trust.Trust(last_check=check, last_passed_check=check, copies=(copied,)), runs=RUNS,
        forecast=forecasts.predict(
            found, [measured], objective_rto=timedelta(minutes=30), retention=timedelta(days=31), now=NOW, prices=prices
        ),
        timings={"full": Timing(UTC, "0 2 * * *"), "incremental": Timing(UTC, "0 * * * *")},
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is not installed; run: make setup-test"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, headless=True, timeout=PATIENCE_MS,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"],
        )
        yield started
        started.close()


@contextmanager
def served(status: Status | None, problem: str = "", label: str = ALARM) -> Iterator[str]:
    def page(query: http.Query) -> http.Answer:
        return front.answer(status, label=label, problem=problem, zone=UTC, now=NOW, query=query)

    with http.WebServer(("127.0.0.1", 0), {"/": page, **front.assets()}) as web:
        web.start()
        yield f"http://127.0.0.1:{web.port}/"


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A tab that fails the test when the browser complains of anything, the page's own policy included."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda request: complaints.append(request.url))
    tab.goto(url)
    yield tab
    context.close()
    assert complaints == []


def test_it_shows_windows_gaps_sets_and_the_command(browser: Browser) -> None:
    status = broken()
    with served(status) as url, opened(browser, url) as tab:
        assert tab.locator("h1").inner_text().endswith(ALARM)  # text, not markup
        assert tab.locator("svg .window").count() == len(status.windows) >= 2
        assert tab.locator("svg .gap").count() >= 1 and tab.locator("svg .set").count() == 9
        point = times.utc_text(max(one.end for one in status.windows))
        assert tab.locator("#command").inner_text() == f"kpbackup restore --to {point}"
        assert tab.locator(".level").inner_text() == status.level.name.lower() != "ok"
        for one in status.reasons:
            assert one.text in tab.locator("main").inner_text()
        assert "20240505T020000Z-abc123" in tab.locator("main").inner_text()
        assert len(tab.content()) < LARGEST_BYTES


def test_it_tells_recoveries_step_by_step_checks_and_what_is_to_come(browser: Browser) -> None:
    status = broken()
    with served(status) as url, opened(browser, url, java_script_enabled=False) as tab:
        newest, older = tab.locator("#recoveries ~ details").all()
        assert newest.locator("summary").inner_text() == f"drill {RUNS[0].name}: failed, journal not signed"
        database = newest.locator("tbody tr").all_inner_texts()[1].split("\t")
        assert database[2:] == ["9s", "failed", "RestoreMismatch, exit code 24"]
        assert not older.locator("table").is_visible()
        older.locator("summary").focus()
        tab.keyboard.press("Enter")
        older.locator("table").wait_for(state="visible")
        assert older.locator("tbody tr").count() == 5
        checks = tab.locator("section[aria-labelledby=checks]").inner_text()
        assert "nothing wrong" in checks and "9 of 90 objects read, 68.8 KiB" in checks and "not signed" in checks
        assert "offsite" in checks
        told = tab.locator("section[aria-labelledby=forecast]").inner_text()
        assert "from 9 backup sets over 8d" in told and "the promised 30m holds for ten years and more" in told
        assert [row.split("\t")[0] for row in tab.locator("#forecast ~ .scroll tbody tr").all_inner_texts()] == [
            "database (rows)", "binlog a day", "repository", "recovery", "cost a month",
        ]  # fmt: skip


def test_a_page_of_a_crowded_year_stays_small() -> None:
    source = Source()
    for day in range(400):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 23)
    kept = tuple(one for number, one in enumerate(source.segments) if number % 20 != 7)
    crowded = catalog(dataclasses.replace(source.history(), segments=kept))
    objectives = Objectives(timedelta(hours=4), timedelta(minutes=30), timedelta(days=35))
    status = assess(crowded, (), objectives=objectives, now=when(24 * 400), timings={}, runs=RUNS * 3)
    shown = front.answer(status, label="shop", problem="", zone=UTC, now=when(24 * 400), query={})
    assert len(status.windows) > 20 and 20_000 < len(shown.body) < LARGEST_BYTES


def test_a_click_on_the_line_gives_the_command_of_that_moment(browser: Browser) -> None:
    status = broken()
    with served(status) as url, opened(browser, url) as tab:
        box = tab.locator("#line").bounding_box()
        assert box is not None
        tab.mouse.click(box["x"] + box["width"] * 0.05, box["y"] + box["height"] / 2)
        tab.wait_for_url("**/?at=*")
        command = tab.locator("#command").inner_text()
        moment = datetime.fromisoformat(command.split()[-1])
        first, last = min(one.start for one in status.windows), NOW
        assert abs((moment - first) / (last - first) - 0.05) < 0.01


def test_without_script_by_keyboard_and_with_nonsense(browser: Browser) -> None:
    status = broken()
    gap = next(one for one in status.windows if one.gap is not None)
    with served(status) as url, opened(browser, url, java_script_enabled=False) as tab:
        tab.locator("svg a").first.focus()
        with tab.expect_navigation():
            tab.keyboard.press("Enter")
        first = min(status.windows, key=lambda one: one.start)
        assert tab.locator("#command").inner_text().endswith(times.utc_text(first.end))
        tab.fill("#at", times.utc_text(gap.end + timedelta(minutes=1)))
        with tab.expect_navigation():
            tab.keyboard.press("Enter")
        assert "cannot be restored to. Nearest:" in tab.locator("[role=alert]").inner_text()
        tab.fill("#at", "<yesterday>")
        with tab.expect_navigation():
            tab.locator("button").click()
        assert "'<yesterday>'" in tab.locator("[role=alert]").inner_text() and tab.locator("#command").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_everything_has_a_name(browser: Browser, scheme: Any, tmp_path: Any) -> None:
    with served(broken()) as url, opened(
        browser, url, viewport={"width": 360, "height": 740}, color_scheme=scheme
    ) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        tree = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")["nodes"]
        roles = ("link", "button", "textbox", "meter", "region", "DisclosureTriangle")
        controls = [
            one for one in tree if one.get("role", {}).get("value") in roles
            or (one.get("role", {}).get("value") != "RootWebArea" and is_focusable(one))
        ]  # fmt: skip
        assert len(controls) > 15 and "DisclosureTriangle" in [one["role"]["value"] for one in controls]
        assert [one for one in controls if not one.get("name", {}).get("value")] == []
        assert contrasts(tab) == []


def is_focusable(node: dict[str, Any]) -> bool:
    return any(one["name"] == "focusable" and one["value"].get("value") for one in node.get("properties", ()))


def contrasts(tab: Page) -> list[str]:
    """Texts whose colour stands out less than 4.5:1 from what lies behind them (WCAG 2.2, 1.4.3)."""
    found: list[str] = tab.evaluate("""() => {
        const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
        const behind = (one) => {
            for (; one; one = one.parentElement) {
                const c = parse(getComputedStyle(one).backgroundColor);
                if (c.length === 3 || c[3] > 0) return c;
            }
            return [255, 255, 255];
        };
        return [...document.querySelectorAll("body *")].filter((one) => one.closest("svg, meter") === null
            && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
            .filter((one) => { const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; })
            .map((one) => one.outerHTML.slice(0, 100));
    }""")
    return found


def test_before_the_first_reading_it_says_why_nothing_is_known(browser: Browser) -> None:
    with served(None, "The store cannot be read: s3://x is away") as url, opened(browser, url) as tab:
        assert tab.locator(".level").inner_text() == "unknown"
        assert "s3://x is away" in tab.locator("[role=alert]").inner_text()
