"""Drivers of a step: a user's program with a documented environment, or a person.

A command runs without a shell. Its environment has KPBACKUP_STEP_NAME (the step), _RUN, _SET, _TARGET_HOST,
_TARGET_PORT and _RECOVERED_TO; never a password. Exit 0 is success. Its output goes to our standard error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from kpbackup import errors
from kpbackup.recovery.steps import Driver, RecoveryRequest, Step

INSTRUCTIONS = {
    Step.PREPARE: "Prepare the new environment: network, secrets, the target server; keep the application stopped.",
    Step.DEPLOY: "Deploy the application against the restored database; do not send users to it yet.",
    Step.VERIFY: "Verify the application against the restored database.",
    Step.SWITCH: "Switch traffic to the recovered application (Service, Ingress or DNS).",
}


def drive(step: Step, driver: Driver, request: RecoveryRequest, facts: Mapping[str, str], run: str) -> str:
    """Drives one step; returns what is to be written into the journal: 'done', 'confirmed' or 'skipped'.

    Raises:
        ManualStepWaiting: a person is needed and there is no terminal.
        StepFailed: the command failed or took too long.
    """
    if driver.kind == "none":
        return "skipped"
    if driver.kind == "kubernetes":
        return "done"  # by run.py itself, before this
    if driver.kind == "manual":
        if request.ask_manual is None:
            raise errors.ManualStepWaiting(
                f"step {step} of recovery {run} waits for a person: {INSTRUCTIONS[step]}",
                hint=f"do it, then run `kpbackup restore --resume {run} --confirm {step}`",
            )
        request.ask_manual(step, INSTRUCTIONS[step])
        return "confirmed"
    _run_command(
        step,
        driver,
        {f"KPBACKUP_STEP_{name.upper()}": value for name, value in facts.items()}
        | {"KPBACKUP_STEP_NAME": str(step), "KPBACKUP_STEP_RUN": run},
    )
    return "done"


def _run_command(step: Step, driver: Driver, environment: Mapping[str, str]) -> None:
    what = f"step {step}: {driver.command[0]}"
    try:
        done = subprocess.run(
            driver.command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            timeout=driver.timeout_s,
            check=False,
        )
    except OSError as exc:
        raise errors.StepFailed(f"{what} cannot be started: {exc.strerror}", hint=f"check recovery.{step}.command") from exc
    except subprocess.TimeoutExpired as exc:
        raise errors.StepFailed(
            f"{what} was stopped after {driver.timeout_s:g} s",
            hint=f"raise recovery.{step}.timeout, or find out why it hangs; then resume",
        ) from exc
    if done.returncode:
        raise errors.StepFailed(
            f"{what} ended with exit code {done.returncode}", hint="its own output above says why; mend it, then resume"
        )
