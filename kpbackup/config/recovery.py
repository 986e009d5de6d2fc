"""Settings of a recovery: the server restored into and what drives each of the five steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group, Login


class TargetSettings(Login):
    """The server restored into. Its account needs all privileges on what is restored."""

    max_connections: values.Whole = pydantic.Field(default=4, ge=1, le=64)
    """Connections a restore loads with at the same time; each has a second one for reading back. More than the server has
    cores gain little."""


class StepSettings(Group):
    """What every step of a recovery can have."""

    driver: Literal["manual", "command", "none"]

    command: tuple[values.Text, ...] = ()
    """Program and arguments of the driver `command`, run without a shell. Exit 0 is success; the recovery is described
    to it in environment variables that begin with KPBACKUP_STEP_."""

    timeout: values.Duration = pydantic.Field(default=timedelta(hours=1), gt=timedelta())
    """Longest run of the command; then it is stopped and the step has failed. An hour is twice the default RTO: longer
    is a hang."""

    @pydantic.model_validator(mode="after")
    def _command_with_its_driver(self) -> Self:
        if self.driver == "command" and not self.command:
            raise ValueError("driver is `command` but command is empty; give a list: [program, argument, ...]")
        if self.driver != "command" and self.command:
            raise ValueError(f"command is set but driver is `{self.driver}`; set driver: command")
        return self


class PrepareSettings(StepSettings):
    """Step 1: plan, keys, space and target are checked. These checks always run; a driver adds to them."""

    driver: Literal["manual", "command", "none"] = "none"
    """`none`: the built-in checks alone. `manual` waits for a person, `command` runs a program, after them."""


class DeploySettings(StepSettings):
    """Step 3: the application is started on the restored database."""

    driver: Literal["manual", "command", "none"] = "manual"
    """`manual` says what to do and waits, because kpbackup cannot guess how the application is deployed; `command` runs
    a program; `none` skips the step, and the run is then not reported as recovered."""


class SqlCheck(Group):
    """One question to the restored database and its right answer."""

    query: values.Text = pydantic.Field(min_length=1)
    """A SELECT; the first column of its first row is compared."""

    expect: values.Answer
    """The value that must come back, compared as text: `expect: 42` and `expect: \"42\"` mean the same."""


class VerifySettings(StepSettings):
    """Step 4: the restored database is judged. Built-in checks always run, then `sql`, then the driver."""

    driver: Literal["manual", "command", "none"] = "none"
    """`none`: the built-in checks and `sql` alone. `command` runs a program that may ask the application itself."""

    sql: tuple[SqlCheck, ...] = ()
    """Questions the restored database must answer rightly: a list of {query, expect}."""


class SwitchSettings(StepSettings):
    """Step 5: users are sent to the recovered application. Runs only after step 4 succeeded."""

    driver: Literal["manual", "command", "none"] = "manual"
    """`manual` says what to do and waits, because this step is seen by users; `command` runs a program; `none` skips the
    step, and the run is then not reported as recovered."""


class RecoverySettings(Group):
    """How a recovery is done."""

    target: TargetSettings | None = None

    prepare: PrepareSettings = PrepareSettings()

    deploy: DeploySettings = DeploySettings()

    verify: VerifySettings = VerifySettings()

    switch: SwitchSettings = SwitchSettings()
