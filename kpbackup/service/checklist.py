"""The high-availability guide's own list, walked: the application in its cluster, the backup policy, the alerts.

Every item has an answer; what could not be seen is said to be `unknown`, with the reason. Nothing is changed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kpbackup import config, errors
from kpbackup.kubernetes.objects import INSTANCE
from kpbackup.mysql.findings import Finding, Severity
from kpbackup.service import opening, reading
from kpbackup.service.doctor import Examined
from kpbackup.service.status import Level

if TYPE_CHECKING:
    from kpbackup.kubernetes.client import Cluster

_SEVERITIES: dict[Level, Severity] = {Level.OK: "ok", Level.WARNING: "warning", Level.CRITICAL: "error", Level.UNKNOWN: "unknown"}


def walk(settings: config.Settings) -> list[Examined]:
    """All findings, in the order of the list; it raises nothing of KpbackupError."""
    found = [Examined(*one) for one in _application(settings)]
    found += [Examined("backup policy", finding) for finding in _policy(settings)]
    found += [Examined("alerts", finding) for finding in _alerts(settings)]
    return found


def _connect(settings: config.Settings) -> Cluster:
    """Raises ClusterError; SettingsError when no application is named."""
    wanted = settings.application
    if wanted is None:
        raise errors.SettingsError(
            "the settings name no application", hint="set application.namespace and application.release (docs/settings.md)"
        )
    from kpbackup.kubernetes import client

    return client.connect(client.Access(wanted.namespace, str(wanted.kubeconfig or ""), wanted.context))


def _application(settings: config.Settings) -> Iterator[tuple[str, Finding]]:
    from kpbackup.kubernetes import availability, sight

    try:
        with _connect(settings) as cluster:
            assert settings.application is not None
            seen = sight.look(cluster, settings.application.selector or f"{INSTANCE}={settings.application.release}")
    except errors.KpbackupError as exc:
        for area in availability.ITEMS:
            yield area, Finding("unknown", f"could not be seen: {exc.message}", mend=exc.hint)
        return
    for one in availability.judge(seen, datetime.now(UTC)):
        yield one.area, Finding(one.severity, one.what, one.why, one.mend)


def _policy(settings: config.Settings) -> Iterator[Finding]:
    timings, now = reading.timings(settings), datetime.now(UTC)
    if settings.source is None:
        yield Finding("unknown", "no source is configured here, so the schedules of whoever makes the backups could not be seen")
    else:
        for kind, timing in (("full", timings["full"]), ("incremental", timings["incremental"])):
            if timing.cron is None and timing.every is None:
                yield Finding("warning", f"schedule.{kind} is off", "no daemon here makes that backup", "set it")
            else:
                yield Finding("ok", f"{kind} backups are scheduled")
        if settings.copies:
            yield Finding("ok", f"{len(settings.copies)} further copies of the repository are kept")
        else:
            yield Finding(
                "warning", "there is one repository alone", "whoever loses or deletes that bucket has no backup",
                "name a second one in another account or region (copies)",
            )
    try:
        state = reading.reader(settings, opening.reading_repository(settings)).read()
    except errors.KpbackupError as exc:
        yield Finding("unknown", f"what is stored could not be seen: {exc.message}", mend=exc.hint)
        return
    for reason in reading.assess(settings, state, now=now).reasons:
        hint = "" if reason.level is Level.OK else "`kpbackup status` has the whole picture"
        yield Finding(_SEVERITIES[reason.level], reason.text, mend=hint)
    if not any(one.passed for one in state.drills):
        yield Finding("warning", "no drill has passed yet", "a backup that was never restored is a hope", "run `kpbackup drill`")


def _alerts(settings: config.Settings) -> Iterator[Finding]:
    from kpbackup.kubernetes import sight

    if settings.notify.webhooks:
        yield Finding("ok", f"{len(settings.notify.webhooks)} webhooks are told of failures")
    try:
        with _connect(settings) as cluster:
            found, everywhere = sight.rules(cluster)
    except errors.KpbackupError as exc:
        yield Finding("unknown", f"alerting rules could not be seen: {exc.message}", mend="docs/alerts.md has the rules to load")
        return
    alerts = [
        rule for one in found for group in one["spec"].get("groups") or () for rule in group.get("rules") or ()
        if rule.get("alert") and "kpbackup_" in str(rule.get("expr", ""))
    ]
    if alerts:
        yield Finding("ok", f"{len(alerts)} alerts on kpbackup are among the cluster's rules; who is paged could not be seen")
    elif everywhere:
        yield Finding(
            "warning", "no PrometheusRule has an alert on kpbackup", "a backup that stopped is noticed on the day it is needed",
            "set metrics.prometheusRule.enabled of the chart, or load the rules of docs/alerts.md",
        )
    else:
        yield Finding("unknown", "the application's namespace has no alert on kpbackup; other namespaces could not be seen")
