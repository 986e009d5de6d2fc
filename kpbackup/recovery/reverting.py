"""A finished switch taken back: what step 5 replaced is put back as the journal recorded it, and nothing else is touched.

It is put back only where it still is as the switch left it. Where somebody changed it since, the places are named and nothing is
done: their change would be lost. What is as it was before the switch already is left alone, so doing it twice is fine, after a
crash in between too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kpbackup import errors
from kpbackup.recovery import environment as environments
from kpbackup.recovery import sealed_fields, switch, verify
from kpbackup.recovery.journal import Entry, Journal
from kpbackup.recovery.steps import RecoveryRequest, Step

EVENT = "reverted"
RECORDED, SWITCHED = "switch_recorded", "switched"  # journal entries: what was there before, and what the switch left


@dataclass(frozen=True)
class Reverted:
    """What was put back. `changed` is False when it was so already; `public_problem` is what is wrong with the public address
    now, '' when it answers as the profile says."""

    run: str
    kind: str
    name: str
    changed: bool
    public_problem: str


def revert(journal: Journal, request: RecoveryRequest, probe: Callable[[], str] | None = None) -> Reverted:
    """Takes the run's switch back, and asks the public address.

    Raises:
        UsageError: step 5 of this run was not done by kpbackup, or is not finished.
        StepFailed: somebody changed the object since. ClusterError, PrivilegeMissing.
    """
    replaced = _switched(journal, request)
    kind, name, before = replaced["kind"], replaced["name"], replaced["before"]
    environment, verification = request.environment, request.verification
    assert environment is not None and verification is not None  # the switch had them
    planned = environments.plan(request, journal.entries[0].at, bundle_key=journal.entries[0].fields.get("bundle", ""))
    assert planned is not None
    with environments.connect(environment, planned) as cluster:
        there = switch.spec_of(cluster, kind, name)
        is_back = there == before
        if not is_back:
            _judge(f"{kind} {name}", replaced["after"], there)
            switch.revert(cluster, replaced)
            _judge_result(f"{kind} {name}", before, switch.spec_of(cluster, kind, name))
    wrong = switch.probed(probe or (lambda: verify.public_problem(request)), verification.public_timeout_s)
    if not is_back or journal.entries[-1].event != EVENT:
        told = {"changed": "no" if is_back else "yes", "public": "wrong" if wrong else "right"}
        journal.write(EVENT, {"kind": kind, **told})
    return Reverted(journal.run, kind, name, not is_back, wrong)


def record_in(journal: Journal) -> Entry | None:
    """What the newest switch recorded; None when that was taken back and followed by nothing: the next switch looks anew."""
    newest = journal.last(RECORDED)
    back = journal.last(EVENT)
    if newest is None or (back is not None and back.record.head.seq > newest.record.head.seq):
        return None
    return newest


def _switched(journal: Journal, request: RecoveryRequest) -> dict[str, Any]:
    """What the newest good switch replaced and left: kind, name, before, after."""
    if not request.driven_by_kubernetes(Step.SWITCH):
        raise errors.UsageError(
            "the settings drive step 5 otherwise than by Kubernetes: kpbackup replaced nothing that it could put back",
            hint="take the switch back the way it was made, or set recovery.switch.driver as it was for the run",
        )
    entry = journal.last(SWITCHED)
    if entry is None:
        raise errors.UsageError(
            f"recovery {journal.run} has no finished switch to take back",
            hint=f"`kpbackup recoveries {journal.run}` shows how far it came; a failed switch is taken back by itself",
        )
    found: dict[str, Any] | None = sealed_fields.unseal(entry.fields["replaced"], request.identities)
    if found is None:
        raise errors.KeyProblem(
            "what the switch replaced was not written down, because the run had no identity to seal it to",
            hint="put it back by hand",
        )
    return found


def _judge(what: str, after: Any, there: Any) -> None:
    """Passes when the object is as the switch left it."""
    if there is None:
        raise errors.StepFailed(f"{what} is gone: somebody deleted it after the switch", hint="make it again, then revert")
    changed = list(differences(after, there))
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise errors.StepFailed(
            f"{what} was changed after the switch, at {', '.join(changed[:5])}{more}: putting it back would undo that, so nothing"
            " was done",
            hint="settle it with whoever changed it, or change it back, then run it again",
        )


def _judge_result(what: str, before: Any, there: Any) -> None:
    if there != before:
        raise errors.StepFailed(
            f"{what} is not as it was before the switch, although it was put back",
            hint="something in the cluster changes it; look at who manages it, then run it again",
        )


def differences(one: Any, other: Any, place: str = "spec") -> Iterator[str]:
    """Where two JSON values differ, as paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from differences(one.get(name), other.get(name), f"{place}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{place}[{number}]")
    elif one != other:
        yield place
