"""The last recoveries and drills step by step, as their journals tell: what the page shows of a run, ended or not.

Pure but for the journal that is passed in. A step that was begun again counts from its last beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup.recovery.journal import Journal

SHOWN = 5  # newest runs; `kpbackup recoveries` lists all


@dataclass(frozen=True)
class StepTold:
    """One step of a run: `result` is `done`, `failed`, `waiting` or `under way`; `note` says more where there is more."""

    name: str
    started_at: datetime
    took: timedelta | None
    result: str
    note: str = ""


@dataclass(frozen=True)
class Run:
    """A recovery or drill. `state` is what its newest entry says; without `signed` nobody vouches for one of its entries."""

    name: str
    kind: str
    target: str
    started_at: datetime
    state: str
    signed: bool
    steps: tuple[StepTold, ...]


def of_journal(journal: Journal) -> Run:
    """The run of a journal, which has at least one entry."""
    first, newest = journal.entries[0], journal.entries[-1]
    begun: dict[str, datetime] = {}
    steps: dict[str, StepTold] = {}
    for entry in journal.entries:
        name, at = entry.fields.get("step", ""), entry.at
        if entry.event == "step_started":
            begun[name] = at
            steps.pop(name, None)  # a step that is done again stands where it was begun last
            steps[name] = StepTold(name, at, None, "under way")
        elif entry.event in _RESULTS and name in begun:
            took = at - begun[name]
            steps[name] = StepTold(name, begun[name], took, _RESULTS[entry.event], _note(entry.event, entry.fields))
    return Run(
        journal.run,
        first.fields.get("kind", "restore"),
        first.fields.get("target", ""),
        first.at,
        newest.fields["result"] if newest.event == "drilled" else newest.event.replace("_", " "),
        all(entry.signed for entry in journal.entries),
        tuple(steps.values()),
    )


_RESULTS = {"step_finished": "done", "step_failed": "failed", "step_waiting": "waiting"}


def _note(event: str, fields: dict[str, str]) -> str:
    if event == "step_failed":
        return f"{fields.get('error', '')}, exit code {fields.get('exit_code', '?')}"
    if event == "step_waiting":
        return fields.get("reason", "")
    told = [f"{fields['rows']} rows"] if "rows" in fields else []
    driven = fields.get("driven", "none")
    return ", ".join(told if driven in ("", "none") else [*told, f"by {driven}"])
