"""Settings of notifications: who is told what. The addresses are secrets: whoever has one can post in your name.

They come from files or from environment variables, never from the settings file itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group

Occasion = Literal["failure", "recovered", "recovery", "drill"]
OCCASIONS: tuple[Occasion, ...] = ("failure", "recovered", "recovery", "drill")


def _variable(value: str) -> str:
    if not value.replace("_", "").isalnum() or value[0].isdigit() or value.startswith("KPBACKUP_"):
        raise ValueError("must be the name of an environment variable that does not begin with KPBACKUP_, such as SLACK_URL")
    return value


Variable = Annotated[values.Text, pydantic.Field(min_length=1), pydantic.AfterValidator(_variable)]


class WebhookSettings(Group):
    """One address that is told by a POST of JSON."""

    name: values.Text = pydantic.Field(min_length=1, max_length=60)
    """How logs and metrics call it, since its address is a secret."""

    format: Literal["json", "slack", "dingtalk", "wecom", "feishu"] = "json"
    """What is posted: `json` is a document of our own (docs/notifications.md), the others what these services take."""

    url_file: values.Path | None = None
    """File that holds the address. Either this or `url_variable`."""

    url_variable: Variable | None = None
    """Environment variable that holds the address."""

    secret_file: values.Path | None = None
    """File with the signing secret of a DingTalk or Feishu robot, where it has one."""

    template: values.Text | None = None
    """JSON of your own that is posted instead, with {title}, {text}, {level}, {source}, {kind}, {occasion} and {at} filled in."""

    occasions: tuple[Occasion, ...] = OCCASIONS
    """On what occasions: `failure` of a job, `recovered` when it works again, `recovery` (a restore ended), `drill`
    (a drill ended, well or not). All by default."""

    @pydantic.field_validator("template", mode="after")
    @classmethod
    def _template_is_json(cls, value: str | None) -> str | None:
        if value is not None:
            import json

            try:
                json.loads(value)
            except ValueError as exc:
                raise ValueError(f"template is not JSON: {exc}") from exc
        return value

    @pydantic.model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url_file is None) == (self.url_variable is None):
            raise ValueError("set url_file or url_variable, and only one of them")
        if self.secret_file is not None and self.format not in ("dingtalk", "feishu"):
            raise ValueError("secret_file goes with the formats dingtalk and feishu only")
        return self


class NotifySettings(Group):
    """Who is told of failures, recoveries and drills. Telling never holds up or fails a backup."""

    webhooks: tuple[WebhookSettings, ...] = ()
    """Addresses that are told: a list of {name, format, url_file or url_variable, ...}."""

    deadman_url_file: values.Path | None = None
    """File with an address that is asked by GET after each success of `deadman_jobs`. A service there, such as a dead-man
    switch, raises the alarm when it hears nothing: so the silence of a machine that is gone is heard too."""

    deadman_url: pydantic.SecretStr | None = None
    """The same address, from the environment alone."""

    deadman_jobs: tuple[Literal["full", "incremental", "check", "prune", "drill"], ...] = ("full", "incremental")
    """Jobs whose success is reported there, at most once a minute."""

    timeout: values.Duration = pydantic.Field(default=timedelta(seconds=10), gt=timedelta(), le=timedelta(minutes=1))
    """Longest wait for one answer."""

    attempts: values.Whole = pydantic.Field(default=5, ge=1, le=20)
    """How often one message is tried, 1, 2, 4, ... seconds apart, before it is given up and counted as lost."""

    kubernetes_events: bool = False
    """Inside a pod, also write failures as Kubernetes Events of the pod. Its service account needs the right to create
    events; the chart gives it."""

    @pydantic.model_validator(mode="after")
    def _one_deadman(self) -> Self:
        if self.deadman_url is not None and self.deadman_url_file is not None:
            raise ValueError("deadman_url and deadman_url_file are both set; keep one")
        names = [one.name for one in self.webhooks]
        if len(names) != len(set(names)):
            raise ValueError("two webhooks have the same name")
        return self

    @property
    def is_used(self) -> bool:
        return bool(self.webhooks or self.deadman_url_file or self.deadman_url or self.kubernetes_events)


def secret_files(notify: NotifySettings) -> dict[str, Any]:
    """Setting -> path of each file with a secret."""
    found: dict[str, Any] = {"notify.deadman_url_file": notify.deadman_url_file}
    for one in notify.webhooks:
        found |= {
            f"notify.webhooks ({one.name}).url_file": one.url_file,
            f"notify.webhooks ({one.name}).secret_file": one.secret_file,
        }
    return found
