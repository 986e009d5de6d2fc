"""What the page tells of a run, from its journal as it is stored: ended, failed, waiting, or broken off in a step."""

from __future__ import annotations

import dataclasses

from kpbackup.recovery import journal
from kpbackup.repository.binding import Repository
from kpbackup.service import reading


def write(repository: Repository, run: str, *events: tuple[str, dict[str, object]]) -> None:
    written = journal.Journal(repository, run)
    for event, fields in events:
        written.write(event, fields)


def test_steps_come_from_the_journals_of_the_newest_runs(repository: Repository) -> None:
    for number in range(6):
        write(repository, f"2024050{number}T100000Z-aaaaaa", ("planned", {"kind": "drill", "target": "latest"}))
    write(
        dataclasses.replace(repository, signing_key=None), "20240510T100000Z-bbbbbb",
        ("planned", {"target": "latest", "set": "0001-1"}),
        ("step_started", {"step": "database"}), ("step_failed", {"step": "database", "error": "StorageError", "exit_code": 15}),
        ("step_started", {"step": "database"}), ("step_finished", {"step": "database", "driven": "none", "rows": 37108}),
        ("step_started", {"step": "deploy"}), ("step_waiting", {"step": "deploy", "reason": "deploy is manual"}),
        ("step_started", {"step": "switch"}),
    )  # fmt: skip
    reader = reading.Reader(repository)
    shown = reader.read().runs
    assert [one.name[:8] for one in shown] == ["20240510", "20240505", "20240504", "20240503", "20240502"]
    newest = shown[0]
    assert (newest.kind, newest.state, newest.signed) == ("restore", "step started", False)
    assert [(one.name, one.result, one.note) for one in newest.steps] == [
        ("database", "done", "37108 rows"), ("deploy", "waiting", "deploy is manual"), ("switch", "under way", ""),
    ]  # fmt: skip
    assert shown[1].signed and (shown[1].kind, shown[1].steps) == ("drill", ())
    again = journal.open_journal(repository, newest.name)
    again.write("step_finished", {"step": "switch", "driven": "kubernetes"})
    again.write("finished", {"recovered": "yes", "measured_rto_s": "12"})
    ended = reader.read().runs[0]
    assert ended.state == "finished" and ended.steps[-1].note == "by kubernetes", "a run that goes on is read anew"
