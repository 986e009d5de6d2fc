"""Telling others, with a real web server at the other end: what arrives, what is tried again, what never holds up a backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup import config, errors
from kpbackup.service import notify
from tests.integration.deployment import Deployment, deploy, order, until
from tests.integration.test_daemon import NEVER, running
from tests.servers.database import Server
from tests.servers.receiver import Receiver, receiver

SECRET_PATH = "/hook/KPTEST-very-secret-token"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def settings_of(directory: Path, hook: Receiver, **more: Any) -> dict[str, Any]:
    """`notify` with one webhook of our own format and a dead-man address."""
    for name, path in (("hook", SECRET_PATH), ("alive", "/alive/KPTEST-very-secret-token")):
        (directory / f"{name}.url").write_text(hook.url(path) + "\n")
        (directory / f"{name}.url").chmod(0o600)
    first = {"name": "team", "url_file": str(directory / "hook.url"), **more.pop("webhook", {})}
    return {"webhooks": [first], "deadman_url_file": str(directory / "alive.url"), "timeout": "60s", **more}


def notifier(directory: Path, hook: Receiver, **more: Any) -> notify.Notifier:
    return notify.notifier(config.Settings.model_validate({"notify": settings_of(directory, hook, **more)}), "shop-db", {})


def tell(told: notify.Notifier, title: str = "full failed") -> None:
    told.tell("failure", kind="full", level="error", title=title, text="why")


def test_what_is_refused_for_a_moment_is_tried_again(tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [(503, b""), (200, b"ok")]
    told = notifier(tmp_path, hook)
    tell(told)
    until(lambda: told.counted()["team"].sent, what="the second attempt")
    assert [one.document["title"] for one in hook.received] == ["shop-db: full failed"] * 2
    assert told.counted()["team"] == notify.Counted(sent=1, lost=0, delivered=True)


@pytest.mark.parametrize("status", [404, 302])
def test_what_is_refused_for_good_is_given_up_and_the_next_one_arrives(
    tmp_path: Path, hook: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [(status, b""), (200, b"ok")]
    told = notifier(tmp_path, hook, attempts=2 if status == 404 else 1)
    tell(told, "first")
    until(lambda: told.counted()["team"].lost, what="it to be given up")
    assert not told.counted()["team"].delivered
    (lost,) = until(lambda: [one for one in list(caplog.records) if one.message == "notification_lost"], what="it to be logged")
    assert f"it answered {status}" in str(vars(lost)) and "KPTEST" not in str(vars(lost))
    tell(told, "second")
    until(lambda: told.counted()["team"].delivered, what="the next one")
    assert [one.method for one in hook.received] == ["POST", "POST"]


def test_a_refusal_in_the_body_counts_and_so_do_occasions(tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [(200, b'{"errcode": 1}')]
    told = notifier(tmp_path, hook, webhook={"format": "wecom", "occasions": ["failure"]}, attempts=1)
    told.tell("drill", kind="drill", level="info", title="drill ended well", text="")
    tell(told)
    until(lambda: told.counted()["team"].lost, what="the refusal")
    assert len(hook.received) == 1


def test_a_service_that_hangs_holds_nobody_up(tmp_path: Path, hook: Receiver) -> None:
    hook.hold.clear()
    told = notifier(tmp_path, hook, attempts=1)
    for number in range(notify.WAITING + 50):
        tell(told, str(number))
    assert not hook.hold.is_set() and len(hook.received) <= 1  # nothing was answered yet, and all of them are told
    assert told.counted()["team"].lost >= 48
    told.close(0.1)


def test_the_switch_hears_of_successes_at_most_once_a_minute(tmp_path: Path, hook: Receiver) -> None:
    told = notifier(tmp_path, hook)
    for kind in ("prune", "full", "incremental", "full"):
        told.succeeded(kind)
    until(lambda: told.counted()["deadman"].sent, what="the ping")
    told.close(5)
    assert [(one.method, one.path) for one in hook.received] == [("GET", "/alive/KPTEST-very-secret-token")]


@pytest.mark.parametrize("text", ["", "ftp://x/KPTEST", "http://", "https://a b/KPTEST", "https://x/\nKPTEST", "not KPTEST"])
def test_a_wrong_address_is_told_without_showing_it(tmp_path: Path, hook: Receiver, text: str) -> None:
    tree = settings_of(tmp_path, hook)
    (tmp_path / "hook.url").write_text(text)
    with pytest.raises(errors.SettingsError, match="holds no http or https address") as caught:
        notify.notifier(config.Settings.model_validate({"notify": tree}), "s", {})
    assert "KPTEST" not in str(caught.value) + caught.value.hint


def test_events_need_a_pod() -> None:
    settings = config.Settings.model_validate({"notify": {"kubernetes_events": True}})
    with pytest.raises(errors.SettingsError, match="no Kubernetes pod"):
        notify.notifier(settings, "s", {})


@pytest.fixture
def told_deployment(tmp_path: Path, mariadb: Server, hook: Receiver) -> Deployment:
    made = deploy(tmp_path / "deployment", mariadb)
    made.settings["notify"] = settings_of(tmp_path, hook)
    made.write()
    return made


def test_the_daemon_tells_a_failure_once_and_that_it_works_again(
    told_deployment: Deployment, mariadb: Server, hook: Receiver
) -> None:
    made = told_deployment
    silent = Deployment(made.directory, {key: value for key, value in made.settings.items() if key != "notify"})
    silent.write()
    silent.json("backup", "full")
    order(mariadb, "archived")
    silent.json("backup", "incremental")
    mariadb.execute("RESET MASTER")
    order(mariadb, "after the reset")
    with running(made, schedule={"full": NEVER, "incremental": NEVER}, archive={"continuous": True, "interval": "1s"}) as daemon:
        until(lambda: titles(hook), what="the failure to be told")
        until(lambda: len(titles(hook)) > 1, what="the recovery to be told")
        assert titles(hook) == ["shop-db: the archive is broken, a full backup starts", "shop-db: incremental works again"]
        sent = {"channel": "team", "outcome": "sent"}  # counted some time after it arrived
        until(lambda: daemon.metric("kpbackup_notifications_total", **sent) == 2, what="both to be counted")
        until(lambda: [one for one in hook.received if one.method == "GET"], what="the dead-man switch to hear of it")
        delivered = "kpbackup_notification_delivered"
        until(lambda: daemon.metric(delivered, channel="deadman") == 1, what="the switch to have answered")
        until(lambda: daemon.metric("kpbackup_job_consecutive_failures", kind="incremental") == 0, what="the failure to be over")
        assert "KPTEST" not in daemon.log.read_text() + daemon.get("/metrics")[1] + daemon.get("/")[1]
        daemon.stop()


def titles(hook: Receiver) -> list[str]:
    return [one.document["title"] for one in list(hook.received) if one.method == "POST"]


def test_one_shot_verbs_tell_how_they_ended(told_deployment: Deployment, mariadb: Server, hook: Receiver) -> None:
    made = told_deployment
    made.json("backup", "full")
    assert [one.path.split("/")[1] for one in hook.received] == ["alive"]
    mariadb.kill()
    ended = made.run("backup", "incremental")
    assert ended.returncode == 12 and titles(hook) == ["shop-db: incremental failed"]
    failure = hook.received[-1].document
    assert failure["occasion"] == "failure" and "cannot connect" in failure["text"] and "hint:" in failure["text"]
    refused = made.run("restore", "--to", "latest")  # no target is set: told, for a recovery was wanted
    assert refused.returncode == 11 and titles(hook)[-1] == "shop-db: recovery failed"


def test_a_service_that_is_away_changes_nothing_of_a_backup(told_deployment: Deployment, tmp_path: Path) -> None:
    made = told_deployment
    made.settings["notify"]["attempts"] = 1
    made.write()
    (tmp_path / "alive.url").write_text("http://127.0.0.1:1/KPTEST-very-secret-token")
    ended = made.run("--log-format", "json", "backup", "full")
    assert ended.returncode == 0 and "notification_lost" in ended.stderr and "KPTEST" not in ended.stderr + ended.stdout
    (tmp_path / "alive.url").write_text("nonsense KPTEST")
    ended = made.run("--log-format", "json", "backup", "incremental")
    assert ended.returncode == 0 and "notification_lost" in ended.stderr and "KPTEST" not in ended.stderr + ended.stdout
