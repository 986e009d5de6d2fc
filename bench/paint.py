"""`python -m bench.paint`: how soon the status page is seen, in a real headless Chromium beside it.

A real `kpbackup exporter` serves the page of a repository of three weeks (tests/showcase.py). Each round opens it in a context of
its own, so that nothing is cached, and asks the browser itself (Paint Timing, from the start of the navigation). The first round
warms the browser up and does not count. The median is judged; where it is over the limit on a machine with more to do than it has
cores, it says nothing about the page.

Writes docs/evidence/paint.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from bench import machine
from bench.published import publish
from tests import showcase
from tests.servers import ports

PAINT_LIMIT_MS, PAGE_LIMIT_BYTES = 200.0, 100_000
ROUNDS = 15
VIEWS: dict[str, dict[str, Any]] = {
    "desk, light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "phone, dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
ASK = """() => new Promise((done) => {
    const look = () => {
        const paint = Object.fromEntries(performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]));
        if (!("first-contentful-paint" in paint)) return requestAnimationFrame(look);
        const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
        done({paint, answered: all[0].responseEnd, page: all[0].decodedBodySize,
              all: all.reduce((sum, one) => sum + one.decodedBodySize, 0)});
    };
    look();
})"""


def opened(browser: Browser, address: str, view: dict[str, Any]) -> dict[str, float]:
    """One cold visit: milliseconds from the start of the navigation, and bytes."""
    context = browser.new_context(**view)
    tab = context.new_page()
    tab.goto(address)
    asked = tab.evaluate(ASK)
    context.close()
    return {
        "answered_ms": asked["answered"],
        "first_paint_ms": asked["paint"]["first-paint"],
        "first_contentful_paint_ms": asked["paint"]["first-contentful-paint"],
        "page_bytes": asked["page"],
        "all_bytes": asked["all"],
    }


def measured() -> dict[str, Any]:
    """All rounds of all views."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not installed; run: make setup-test")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        made, port = showcase.stocked(Path(scratch) / "repository"), ports.free_port()
        config = showcase.settings(Path(scratch), made, port)
        facts = machine.facts()
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        with showcase.exporter(config, port) as address:
            runs = {name: [opened(browser, address, view) for _ in range(ROUNDS + 1)][1:] for name, view in VIEWS.items()}
        version = browser.version
        browser.close()
    made_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {"made_at": made_at, **machine.commit(), "machine": facts, "chromium": version, "views": runs}


def table(found: dict[str, Any]) -> str:
    """What the page of figures shows."""
    cpu = found["machine"]
    lines = [
        f"Made at {found['made_at']}, commit `{found['commit'][:12]}`: Chromium {found['chromium']}, {cpu['cpu']},"
        f" {cpu['cores']} cores, load {cpu['load_1min']} before.",
        "",
        "| view | answer read, ms | first paint, ms | all runs, ms | first text, ms | limit, ms | bytes | with its files | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found["views"].items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        each = " ".join(f"{run['first_paint_ms']:.0f}" for run in runs)
        is_met = median["first_paint_ms"] < PAINT_LIMIT_MS and median["page_bytes"] < PAGE_LIMIT_BYTES
        verdict = "met" if is_met else "**missed**" if cpu["load_1min"] <= cpu["cores"] else "not met; not judged at this load"
        lines.append(
            f"| {name} | {median['answered_ms']:.0f} | {median['first_paint_ms']:.0f} | {each}"
            f" | {median['first_contentful_paint_ms']:.0f} | {PAINT_LIMIT_MS:.0f} | {median['page_bytes']:,.0f}"
            f" | {median['all_bytes']:,.0f} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> int:
    found = measured()
    publish("paint", found, table(found))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
