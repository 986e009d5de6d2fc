"""Renews the pictures in docs/images: the status page in a browser, the terminal, the dashboard.

    make screenshots

The repository is made for it: three weeks of signed manifests without data, a gap, a drill, a check. Page and text are what the
program itself shows of it. The dashboard is drawn here from the panels of chart/files/dashboard.json, with sample curves, by no
Grafana: it shows which panels there are and where, not how Grafana draws them. Needs chromium, as the tests do.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import showcase, terminal  # noqa: E402
from tests.servers import ports  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COLOURS = {"31": "#ff8d91", "32": "#6fd18b", "33": "#f0b35a", "1": "inherit", "35": "#d7a6f5", "36": "#7dd3f0", "2": "#a9b3c1"}
TERMINAL = (
    "margin:0;padding:1.2rem;background:#12161c;color:#e6eaf0;font:15px/1.35 'DejaVu Sans Mono',monospace;width:max-content"
)


def page(browser: Browser, address: str) -> None:
    """Light, dark, and on a phone."""
    views: dict[str, dict[str, Any]] = {
        "status-page.png": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
        "status-page-top.png": {"viewport": {"width": 1100, "height": 690}, "color_scheme": "light"},
        "status-page-dark.png": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
        "status-page-phone.png": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    }
    for name, view in views.items():
        tab = browser.new_context(**view).new_page()
        tab.goto(address)
        tab.screenshot(path=IMAGES / name, full_page="phone" not in name and "top" not in name)


def typed(browser: Browser, config: Path, *verbs: str) -> None:
    """What the program draws on a terminal of a hundred columns."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KPBACKUP_")}
    for verb in verbs:
        argv = [sys.executable, "-m", "kpbackup", "--config", str(config), verb]
        _, text = terminal.drawn(argv, env={**kept, "TERM": "xterm-256color", "COLUMNS": "110"}, cwd=ROOT)
        tab = browser.new_page(device_scale_factor=1)
        tab.set_content(f'<pre style="{TERMINAL}">$ kpbackup {verb}\n{coloured(text)}</pre>')
        tab.locator("pre").screenshot(path=IMAGES / f"terminal-{verb}.png")
        tab.close()


def coloured(text: str) -> str:
    """Colours of a terminal as markup; other controls are left out."""
    shown, is_open = [], False
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", text.replace("\r", "")):
        if not part.startswith("\x1b"):
            shown.append(html.escape(part))
        elif part.endswith("m"):
            shown.append("</span>" if is_open else "")
            codes = part[2:-1].split(";")
            colour = next((COLOURS[code] for code in codes if code in COLOURS and code != "1"), "inherit")
            is_open = codes not in ([""], ["0"])
            shown.append(f'<span style="color:{colour}{";font-weight:700" if "1" in codes else ""}">' if is_open else "")
    return "".join(shown) + ("</span>" if is_open else "")


# -- the dashboard


def dashboard(browser: Browser) -> None:
    """Every panel of the JSON at its place."""
    panels = json.loads((ROOT / "chart/files/dashboard.json").read_text(encoding="utf-8"))["panels"]
    boxes = "".join(_panel(one) for one in panels)
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * 36
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.set_content(
        "<style>body{margin:0;background:#111217;color:#ccccdc;font:13px 'DejaVu Sans',sans-serif}"
        ".p{position:absolute;background:#181b1f;border:1px solid #2c3235;border-radius:3px;padding:6px;overflow:hidden}"
        ".p{box-sizing:border-box}.r{font-weight:700;font-size:15px;position:absolute;padding:8px 4px}"
        ".v{font-size:19px;color:#fff;background:#37672f;text-align:center;margin-top:6px;border-radius:2px}small{color:#8e8e9d}</style>"
        f'<div id="all" style="position:relative;width:1296px;height:{height + 30}px">{boxes}'
        f'<small style="position:absolute;top:{height + 8}px;left:6px">drawn from chart/files/dashboard.json with sample curves, '
        "not by Grafana</small></div>"
    )
    tab.locator("#all").screenshot(path=IMAGES / "dashboard.png")


def _panel(one: dict[str, Any]) -> str:
    place, title = one["gridPos"], html.escape(one["title"])
    x, y, w, h = place["x"] * 54, place["y"] * 36, place["w"] * 54 - 6, place["h"] * 36 - 6
    where = f"left:{x}px;top:{y}px;width:{w}px;height:{h}px"
    if one["type"] == "row":
        return f'<div class="r" style="{where}">{title}</div>'
    shown = {"timeseries": _curves, "stat": _figure, "gauge": _figure}.get(one["type"], _states)(one, w - 14, h - 52)
    return f'<div class="p" style="{where}">{title}{shown}</div>'


def _legend(one: dict[str, Any]) -> list[str]:
    labels = {"source": "kubepolaris-db", "kind": "full", "repository": "offsite", "recipient": "age1c365r5w", "of": "database"}
    labels |= {"instance": "10.42.1.17:8080", "endpoint": "store", "channel": "slack", "outcome": "sent", "path": "/metrics"}
    found = [target.get("legendFormat") or target["expr"] for target in one.get("targets", ())]
    return [re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda label: labels.get(label[1], label[1]), text)[:40] for text in found]


def _curves(one: dict[str, Any], width: int, height: int) -> str:
    colours, lines = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c"), []
    for number in range(len(one.get("targets", ()))):
        shown = " ".join(f"{at * width / 60:.0f},{height * _sample(one, number, at):.0f}" for at in range(61))
        colour, is_level = colours[number % 5], _sample(one, number, 0) == _sample(one, number, 1)
        fill = "" if is_level else f'<polygon points="0,{height} {shown} {width},{height}" fill="{colour}" fill-opacity=".1"/>'
        dashes = ' stroke-dasharray="6 4"' if is_level else ""
        lines.append(f'{fill}<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>')
    grid = "".join(f'<path d="M0 {height * at / 4:.0f}H{width}" stroke="#2c3235"/>' for at in range(5))
    named = [f'<span style="color:{colours[at % 5]}">■</span> {html.escape(text)}' for at, text in enumerate(_legend(one))]
    drawing = f'<svg width="{width}" height="{height}" style="display:block;margin:4px 0">{grid}{"".join(lines)}</svg>'
    return f"{drawing}<small>{' &nbsp; '.join(named)}</small>"


def _sample(one: dict[str, Any], number: int, at: int) -> float:
    """What was promised is level and above; the rest moves below it."""
    if re.search("promised|allowed", one["targets"][number].get("legendFormat", "")):
        return 0.12
    seed = one["id"] * 7 + number * 3
    return 0.45 + 0.14 * number + 0.12 * math.sin(at / (3 + seed % 5) + seed) + 0.1 * (at % (6 + seed % 4)) / 9


def _figure(one: dict[str, Any], width: int, height: int) -> str:
    defaults = one.get("fieldConfig", {}).get("defaults", {})
    texts = [text["text"] for mapping in defaults.get("mappings", ()) for text in mapping["options"].values() if "text" in text]
    sample = {"s": "3 s", "bytes": "231 MiB", "dateTimeAsIso": "2026-11-27 20:31:45", "percentunit": "0.1 %"}
    shown = next((text for text in texts if text in ("ok", "intact", "yes")), "") or sample.get(defaults.get("unit", ""), "ok")
    shown = "2 days" if "drill" in one["title"] else shown
    return f'<div class="v" style="height:{height + 14}px;line-height:{height + 14}px">{shown}</div>'


def _states(one: dict[str, Any], width: int, height: int) -> str:
    """Bars, one for each target."""
    bar = "display:inline-block;background:#37672f;height:22px;border-radius:2px;margin-top:2px"
    return "".join(
        f'<div style="margin-top:10px"><small>{html.escape(text)}</small><br><span style="{bar};width:{width}px"></span></div>'
        for text in _legend(one)
    )


def main() -> None:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not installed; run: make setup-test")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        made, port = showcase.stocked(Path(scratch) / "repository"), ports.free_port()
        config = showcase.settings(Path(scratch), made, port)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        dashboard(browser)
        typed(browser, config, "status", "forecast")
        with showcase.exporter(config, port) as address:
            page(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
