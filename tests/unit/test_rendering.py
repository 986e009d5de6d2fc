"""How answers, progress and log lines look, as text and as JSON, on a terminal and off it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kpbackup import logs
from kpbackup.cli import render
from kpbackup.service import progress

MOMENT = datetime(2024, 5, 1, 10, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    yield stream
    logs.setup()  # lets go of the stream
    logging.captureWarnings(False)


def test_a_table_is_aligned_and_escapes_what_a_name_may_hold() -> None:
    table = render.Table(("NAME", "ROWS", "AT"), [("a\x1b[31m\n", 7, MOMENT), ("long name", 12345, None)])
    assert render.table_text(table) == (
        "NAME          ROWS  AT\n"
        "a\\x1b[31m\\n      7  2024-05-01T10:00:00Z\n"
        "long name    12345  -\n"
    )  # fmt: skip
    assert render.table_text(render.Table(("A",), [], empty="no backup sets")) == "no backup sets\n"


def test_a_terminal_gets_the_same_cells() -> None:
    stream = Terminal()
    render.Printer(stream=stream).show({}, render.Table(("NAME", "ROWS"), [("[bold]x\x1b[0m", 7)]))
    assert "[bold]x\\x1b[0m" in stream.getvalue() and "7" in stream.getvalue()


def test_fields_leave_out_what_is_not_there() -> None:
    fields = render.Fields([("set", "s1"), ("gone", None), ("took", timedelta(seconds=90)), ("whole", True)])
    assert render.fields_text(fields) == "set:   s1\ntook:  1m 30s\nwhole: yes\n"


def test_json_mode_prints_one_document_and_no_text() -> None:
    stream = io.StringIO()
    printer = render.Printer(json=True, stream=stream)
    printer.say("hello")
    printer.show({"at": MOMENT, "took_seconds": timedelta(seconds=1.5), "names": ("é",)}, "text")
    assert json.loads(stream.getvalue()) == {"at": "2024-05-01T10:00:00.000Z", "took_seconds": 1.5, "names": ["é"]}
    with pytest.raises(ValueError, match="one JSON document"):
        printer.show({})


def test_log_events_as_text_and_as_json(logged: io.StringIO) -> None:
    logger = logging.getLogger("kpbackup.trial")
    secret = pydantic.SecretStr("KPDEMO-SECRET")
    fields: dict[str, Any] = {"object_key": "a b\n", "size_bytes": 7, "path": Path("/x"), "secret": secret, "time": MOMENT}
    logs.setup(stream=logged)
    logs.event(logger, "segment_archived", **fields)
    line = logged.getvalue()
    assert " INFO segment_archived object_key=\"a b\\n\" size_bytes=7 path=/x secret=" in line and line.count("\n") == 1
    logged.truncate(0)
    logged.seek(0)
    logs.setup(format="json", stream=logged)
    logs.event(logger, "segment_archived", **fields)
    document = json.loads(logged.getvalue())
    assert (document["event"], document["level"], document["size_bytes"]) == ("segment_archived", "info", 7)
    assert document["logger"] == "kpbackup.trial"
    assert document["time"].endswith("Z") and document["time_"] == "2024-05-01T10:00:00.000Z"
    assert "KPDEMO" not in line + logged.getvalue()


def test_levels_and_other_libraries(logged: io.StringIO) -> None:
    logs.setup(level="debug", stream=logged)
    logging.getLogger("botocore").debug("signature")
    logging.getLogger("kpbackup.trial").debug("seen")
    logs.setup(level="error", stream=logged)
    logs.event(logging.getLogger("kpbackup.trial"), "unseen", level=logging.WARNING)
    assert "seen" in logged.getvalue() and "signature" not in logged.getvalue() and "unseen" not in logged.getvalue()


@pytest.mark.parametrize(("level", "traced"), [("info", False), ("debug", True)])
def test_a_traceback_needs_level_debug(logged: io.StringIO, level: str, traced: bool) -> None:
    logs.setup(level=level, stream=logged)
    try:
        raise RuntimeError("why")
    except RuntimeError as exc:
        logs.event(logging.getLogger("kpbackup.trial"), "job_failed", level=logging.ERROR, error=exc)
    assert 'error="RuntimeError: why"' in logged.getvalue()
    assert ("Traceback" in logged.getvalue()) is traced


def test_a_bar_shows_share_rate_and_eta() -> None:
    state = progress.State(512 << 20, 1 << 30, "bytes", 64 << 20)
    assert progress.bar_line("full backup", state) == (
        "full backup  [############------------]   50%  512 MiB of 1.0 GiB  64.0 MiB/s  ETA 8s"
    )
    assert progress.bar_line("replay", progress.State(1500, None, "transactions", None)) == "replay  1,500 transactions"
    assert progress.State(3, 2, "tables", 1.0).share == 1.0


def test_a_bar_is_throttled_finished_and_removed() -> None:
    now = [0.0]
    stream = Terminal()
    shown = progress.Progress("work", stream=stream, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] = step * 0.001
        shown.report(step, 1000, "rows")
    drawn = stream.getvalue().count("work")
    shown.report(1000, 1000, "rows")
    assert drawn == 1 and stream.getvalue().count("work") == 2 and "100%" in stream.getvalue()
    shown.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_phases_that_overlap_have_their_own_rates_and_one_bar(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    stream = Terminal()
    bar = progress.Progress("restore", stream=stream, clock=lambda: now[0])
    lines = progress.Progress("restore", stream=io.StringIO(), clock=lambda: now[0], log_interval_s=5)
    with caplog.at_level(logging.INFO, logger="kpbackup"):
        for second in range(1, 21):
            now[0] = float(second)
            for shown in (bar, lines):
                shown.report(second * 10, 200, "rows", "load")
                if second > 4:
                    shown.report((second - 4) * 2, 200, "rows", "read back")
    drawn = [line.partition("  ")[0] for line in stream.getvalue().split("\r\x1b[K")[1:]]
    assert drawn == ["restore: load"] * 20 + ["restore: read back"]
    events = [record.__dict__["fields"] for record in caplog.records if record.message == "progress_reported"]
    assert {event["phase"]: event["rows_per_second"] for event in events} == {"load": 10, "read back": 2}
    assert events[-1]["work"] == "restore" and {"done_rows", "total_rows", "eta_seconds"} <= set(events[-1])


def test_off_a_terminal_a_line_is_logged_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    shown = progress.Progress("work", stream=io.StringIO(), clock=lambda: now[0], log_interval_s=30)
    with caplog.at_level(logging.INFO, logger="kpbackup"):
        for second in range(1, 100):
            now[0] = float(second)
            shown.report(second * 10, 2000, "rows")
    events = [record.__dict__["fields"] for record in caplog.records if record.message == "progress_reported"]
    assert [event["done_rows"] for event in events] == [300, 600, 900]
    assert events[-1]["rows_per_second"] == 10 and events[-1]["eta_seconds"] == 110
