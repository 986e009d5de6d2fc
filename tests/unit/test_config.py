"""Settings: which place wins, what is refused and how it is told, and that no secret is ever shown."""

from __future__ import annotations

import logging
import re
import traceback
from datetime import UTC, timedelta
from pathlib import Path

import pytest
import yaml

from kpbackup import config, errors
from kpbackup.config import keys

ROOT = Path(__file__).resolve().parents[2]
MARKER = "KPDEMO-SECRET-settings"
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
PUBLIC_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"


def write(directory: Path, text: str) -> Path:
    path = directory / "kpbackup.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None, environ: dict[str, str] | None = None, **overrides: object) -> errors.SettingsError:
    with pytest.raises(errors.SettingsError) as caught:
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        config.load(path or Path("/dev/null"), environ or {}, overrides=dotted)
    return caught.value


def everything_said(exc: errors.KpbackupError) -> str:
    return exc.message + exc.hint + repr(exc) + "".join(traceback.format_exception(exc))


def test_options_beat_environment_beats_file(tmp_path: Path) -> None:
    path = write(tmp_path, "retention: {days: 1, complete_chains: 5}\ntimezone: Europe/Berlin\nobjectives: {rpo: 2h}\n")
    environ = {"KPBACKUP_RETENTION__DAYS": "2", "KPBACKUP_TIMEZONE": "Asia/Tokyo"}
    settings = config.load(path, environ, overrides={"retention.days": "3"})
    assert (settings.retention.days, settings.timezone) == (3, "Asia/Tokyo")
    assert (settings.retention.complete_chains, settings.objectives.rpo) == (5, timedelta(hours=2))
    assert config.load(path, environ).retention.days == 2
    assert config.load(path, {}).retention.days == 1
    assert config.load("/dev/null", {}).retention.days == 30


def test_the_path_beats_the_variable_that_names_a_file(tmp_path: Path) -> None:
    named = write(tmp_path, "retention: {days: 4}\n")
    assert config.load(None, {"KPBACKUP_CONFIG": str(named)}).retention.days == 4
    assert config.load("/dev/null", {"KPBACKUP_CONFIG": str(named)}).retention.days == 30


def test_no_file_is_needed() -> None:
    settings = config.load("/dev/null", {
        "KPBACKUP_SOURCE__HOST": "db", "KPBACKUP_SOURCE__USER": "u", "KPBACKUP_SOURCE__DATABASES": "shop, crm",
        "KPBACKUP_REPOSITORY__URL": "file:///srv/kpbackup/", "KPBACKUP_ENCRYPTION__RECIPIENTS": f"[{RECIPIENT}]",
        "KPBACKUP_RECOVERY__VERIFY__SQL": "[{query: 'select 1', expect: 1}]", "KPBACKUP_SOURCE__BANDWIDTH_LIMIT": "20MiB/s",
        "KPBACKUP_SCHEDULE__FULL": "null",
    })  # fmt: skip
    assert settings.need_source().databases == ("shop", "crm")
    assert settings.need_source().label == "db:3306"
    assert settings.need_source().bandwidth_limit == 20 << 20
    assert settings.need_repository().url == "file:///srv/kpbackup"
    assert settings.need_recipients() == (RECIPIENT,)
    assert settings.recovery.verify.sql[0].expect == "1"
    assert settings.schedule.full is None
    assert settings.zone is UTC


def test_an_empty_variable_counts_as_not_set() -> None:
    assert config.load("/dev/null", {"KPBACKUP_RETENTION__DAYS": "", "KPBACKUP_SOURCE__HOST": ""}).source is None


@pytest.mark.parametrize(("text", "key", "suggestion"), [
    ("retension: {days: 1}", "retension", "retention"),
    ("retention: {day: 1}", "retention.day", "retention.days"),
    ("source: {host: h, user: u, tls: {require: true}}", "source.tls.require", "source.tls.required"),
    ("host: h", "host", "source.host"),
    ("recovery: {verify: {sql: [{query: q, expct: 1}]}}", "recovery.verify.sql.1.expct", "expect"),
])  # fmt: skip
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, key: str, suggestion: str) -> None:
    path = write(tmp_path, text)
    refused = refusal(path)
    assert refused.message == f"{path}: {key}: unknown key"
    assert suggestion in refused.hint


def test_unknown_variables_and_options_name_the_nearest() -> None:
    assert "KPBACKUP_SOURCE__HOST?" in refusal(None, {"KPBACKUP_SOURCE_HOST": "h"}).hint
    assert "KPBACKUP_RETENTION__DAYS?" in refusal(None, {"KPBACKUP_RETENTION__DAY": "1"}).hint
    assert "KPBACKUP_SOURCE__HOST" in refusal(None, {"KPBACKUP_SOURCE": "h"}).hint
    assert "retention.days?" in refusal(None, retention__day="1").hint
    assert "retention.days" in refusal(None, retention="1").hint


def test_variables_of_others_are_passed_over() -> None:
    environ = {
        "KPBACKUP_SERVICE_HOST": "10.0.0.1", "KPBACKUP_SERVICE_PORT": "8080", "KPBACKUP_SERVICE_PORT_HTTP": "8080",
        "KPBACKUP_PORT": "tcp://10.0.0.1:8080", "KPBACKUP_PORT_8080_TCP_ADDR": "10.0.0.1", "KPBACKUP_WEB_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "KPBACKUP_TEST_WITHOUT": "mysql97", "KPBACKUP_STEP_NAME": "deploy", "HOME": "/root",
    }  # fmt: skip
    assert config.load("/dev/null", environ) == config.load("/dev/null", {})
    assert "KPBACKUP_SOURCE__PORT?" in refusal(None, {"KPBACKUP_SOURCE_PORT": "3307"}).hint


@pytest.mark.parametrize(("text", "said"), [
    ("source: {user: u}", "source.host: is not set"),
    ("source: {host: h}", "source.user: is not set"),
    ("repository: {region: eu}", "repository.url: is not set"),
    (
        "repository: {url: 'file:///x', region: eu}",
        "repository: endpoint_url, region, profile, ca_file and lock go with an s3:// url only",
    ),
    ("signing: {key_password_file: /x}", "signing: key_password_file is set without key_file"),
    ("recovery: {deploy: {driver: command}}", "recovery.deploy: driver is `command` but command is empty"),
    ("recovery: {deploy: {command: [/bin/true]}}", "recovery.deploy: command is set but driver is `manual`"),
    ("recovery: {target: {port: 3307}}", "recovery.target.host: is not set"),
    ("recovery: {verify: {sql: [{query: q}]}}", "recovery.verify.sql.1.expect: is not set"),
])  # fmt: skip
def test_half_set_groups_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    assert f"{path}: {said}" in refusal(path).message


@pytest.mark.parametrize(("text", "said"), [
    ("timezone: Europe/Berln", "did you mean Europe/Berlin?"),
    ("timezone: ../../etc/passwd", "unknown time zone"),
    ("timezone: America", "unknown time zone"),
    ("schedule: {full: '0 2 * *'}", "cron expression of five fields"),
    ("schedule: {full: '99 2 * * *'}", "is not a cron expression"),
    ("schedule: {full: '0 0 31 2 *'}", "never comes"),
    ("objectives: {rpo: soon}", "not a duration; write 10s"),
    ("objectives: {rpo: 0s}", "must be more than 0 seconds"),
    ("archive: {segment_bytes: 1KiB}", "must be at least 64KiB"),
    ("archive: {interval: 2h}", "must be at most 1 hour"),
    ("retention: {days: many}", "must be a whole number"),
    ("retention: {days: true}", "must be a whole number"),
    ("retention: {days: 0}", "must be at least 1"),
    ("source: {host: h, user: 12}", "must be text; put it in quotes"),
    ("source: {host: 'h:3306', user: u}", "its port belongs into the key `port`"),
    ("source: {host: 'mysql://h', user: u}", "without scheme"),
    ("source: {host: h, user: u, port: 70000}", "must be at most 65535"),
    ("source: {host: h, user: u, databases: shop}", "must be a list"),
    ("repository: {url: /srv/backups}", "write s3://bucket/prefix or file:///absolute/path"),
    ("repository: {url: 'file://srv/backups'}", "is not a repository"),
    ("repository: {url: 's3:///prefix'}", "is not a repository"),
    ("repository: {url: 's3://bucket/a', endpoint_url: 'minio:9000'}", "write https://host:port"),
    ("encryption: {recipients: [age1short]}", "not an age recipient"),
    ("signing: {public_keys: [RWshort]}", "not a minisign public key"),
    ("log: {level: loud}", "must be one of debug, info, warning or error"),
    ("service: {listen: '8080'}", "write host:port"),
    ("copies: [s3://other]", "must hold the keys"),
    ("copies: [{name: a, url: 'file:///x'}, {name: a, url: 'file:///y'}]", "the same name"),
    ("repository: {url: 'file:///x'}\ncopies: [{name: a, url: 'file:///x'}]", "a store of its own"),
    ("drill: {mail: x}", "drill.mail: unknown key"),
    ("source: yes", "source: must hold keys: "),
    ("- a", "must hold keys and values"),
    ("a: [", "line "),
    ("timezone: UTC\ntimezone: UTC", "line 2, column 1: the key 'timezone' is given twice"),
])  # fmt: skip
def test_wrong_values_are_told_plainly(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    refused = refusal(path)
    assert said in refused.message + refused.hint
    assert str(path) in refused.message
    assert "pydantic" not in everything_said(refused)
    assert refused.hint


def test_all_faults_are_told_at_once() -> None:
    refused = refusal(None, {"KPBACKUP_RETENTION__DAYS": "x", "KPBACKUP_TIMEZONE": "Mars"})
    assert "2 settings are wrong" in refused.message
    assert "variable KPBACKUP_RETENTION__DAYS: retention.days: must be a whole number" in refused.message


def test_a_missing_file_and_a_binary_one_are_told(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.yaml").message
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refusal(path).message


def test_a_password_in_the_file_or_an_option_is_refused(tmp_path: Path) -> None:
    in_file = refusal(write(tmp_path, f"source: {{host: h, user: u, password: {MARKER}}}"))
    assert "source.password_file" in in_file.hint and "KPBACKUP_SOURCE__PASSWORD" in in_file.hint
    as_option = refusal(None, recovery__target__password=MARKER)
    assert MARKER not in everything_said(in_file) + everything_said(as_option)


def test_a_password_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    login = {"KPBACKUP_SOURCE__HOST": "h", "KPBACKUP_SOURCE__USER": "u"}
    assert config.load("/dev/null", login).source_password().get_secret_value() == ""
    by_variable = config.load("/dev/null", {**login, "KPBACKUP_SOURCE__PASSWORD": MARKER})
    assert by_variable.source_password().get_secret_value() == MARKER
    path = tmp_path / "password"
    path.write_text(f" {MARKER} \n", encoding="utf-8")
    by_file = config.load("/dev/null", {**login, "KPBACKUP_SOURCE__PASSWORD_FILE": str(path)})
    assert by_file.source_password().get_secret_value() == f" {MARKER} "
    both = refusal(None, {**login, "KPBACKUP_SOURCE__PASSWORD_FILE": str(path), "KPBACKUP_SOURCE__PASSWORD": MARKER})
    assert "keep one" in both.message
    assert MARKER not in everything_said(both)
    path.unlink()
    with pytest.raises(errors.SettingsError, match=r"source\.password_file: cannot read .*No such file"):
        by_file.source_password()


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    environ = {"KPBACKUP_SOURCE__HOST": "h", "KPBACKUP_SOURCE__USER": "u", "KPBACKUP_SOURCE__PASSWORD": MARKER}
    settings = config.load("/dev/null", environ)
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
    shown += [repr(settings.source_password()), str(settings.source_password())]
    wrong = refusal(None, {**environ, "KPBACKUP_SOURCE__PORT": "x", "KPBACKUP_SOURCE__TLS__REQUIRED": "x"})
    broken = refusal(write(tmp_path, f"source:\n  password: {MARKER}\n  host: [\n"))
    key_as_recipient = refusal(None, {"KPBACKUP_ENCRYPTION__RECIPIENTS": f"AGE-SECRET-KEY-1{MARKER}"})
    in_url = refusal(None, {"KPBACKUP_REPOSITORY__URL": f"s3://id:{MARKER}@bucket/p"})
    shown += [everything_said(exc) for exc in (wrong, broken, key_as_recipient, in_url)]
    assert [text for text in shown if MARKER in text] == []
    assert "private identity" in key_as_recipient.message


def test_a_file_everyone_may_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("x", encoding="utf-8")
    environ = {"KPBACKUP_SOURCE__HOST": "h", "KPBACKUP_SOURCE__USER": "u", "KPBACKUP_SOURCE__PASSWORD_FILE": str(path)}
    settings = config.load("/dev/null", environ)
    path.chmod(0o644)
    assert settings.exposed_files() == (("source.password_file", str(path)),)
    path.chmod(0o640)
    assert settings.exposed_files() == ()


def test_what_a_verb_needs_is_named_when_missing() -> None:
    settings = config.load("/dev/null", {})
    needs = {
        "source.host": settings.need_source, "repository.url": settings.need_repository,
        "recovery.target.host": settings.need_target,
        "encryption.recipients": settings.need_recipients, "signing.public_keys": settings.need_public_keys,
        "encryption.identity_file": settings.need_identity, "signing.key_file": settings.need_signing_key,
    }  # fmt: skip
    for key, need in needs.items():
        with pytest.raises(errors.SettingsError, match=re.escape(key)) as caught:
            need()
        assert caught.value.hint


def test_key_files_are_read_when_needed(tmp_path: Path) -> None:
    recipients, identity, pub = (tmp_path / name for name in ("recipients", "identity", "pub"))
    recipients.write_text(f"# office\n{RECIPIENT}\n\n", encoding="utf-8")
    identity.write_text(f"AGE-SECRET-KEY-1{MARKER}\n", encoding="utf-8")
    pub.write_text(f"untrusted comment: minisign public key\n{PUBLIC_KEY}\n", encoding="utf-8")
    settings = config.load("/dev/null", {}, overrides={
        "encryption.recipients": [RECIPIENT], "encryption.recipients_file": str(recipients),
        "encryption.identity_file": str(identity),
        "signing.public_keys_file": str(pub), "signing.key_file": str(identity),
    })  # fmt: skip
    assert settings.need_recipients() == (RECIPIENT,)
    assert settings.need_public_keys() == (PUBLIC_KEY,)
    content = settings.need_identity()
    assert content is not None and MARKER.encode() in content.get_secret_value() and MARKER not in repr(settings)
    assert settings.need_signing_key()[1] is None
    recipients.write_text(f"# office\nAGE-SECRET-KEY-1{MARKER}\n", encoding="utf-8")
    with pytest.raises(errors.KeyProblem, match="line 2 of .*private identity") as caught:
        settings.need_recipients()
    assert MARKER not in everything_said(caught.value)
    identity.unlink()
    with pytest.raises(errors.KeyProblem, match=r"encryption\.identity_file: cannot read"):
        settings.need_identity()


def test_the_example_is_complete_and_valid() -> None:
    path = ROOT / "kpbackup.example.yaml"
    config.load(path, {})
    document = yaml.safe_load(path.read_text(encoding="utf-8"))

    def present(dotted: str) -> bool:
        place = document
        for name in dotted.split("."):
            if not isinstance(place, dict) or name not in place:
                return False
            place = place[name]
        return True

    assert [key.path for key in keys.all_keys() if not key.is_secret and not present(key.path)] == []
    assert [path for path, _ in keys.group_paths() if not present(path)] == []


def test_the_example_shows_the_defaults() -> None:
    example, plain = config.load(ROOT / "kpbackup.example.yaml", {}), config.load("/dev/null", {})
    for group in ("timezone", "schedule", "archive", "objectives", "retention", "log"):
        assert getattr(example, group) == getattr(plain, group), group
    assert example.service.listen == plain.service.listen
    assert example.recovery.deploy == plain.recovery.deploy


def test_reading_settings_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"KPBACKUP_SOURCE__HOST": "h", "KPBACKUP_SOURCE__USER": "u", "KPBACKUP_SOURCE__PASSWORD": MARKER}
    with caplog.at_level(logging.DEBUG):
        config.load("/dev/null", environ)
    assert caplog.text == ""


def test_a_bare_off_switches_the_lock_off(tmp_path: Path) -> None:
    path = write(tmp_path, "repository: {url: 's3://bucket/a', lock: {mode: off}}")
    assert config.load(path, {}).need_repository().lock.mode == "off"
    assert "off, governance or compliance" in refusal(write(tmp_path, "repository: {url: 's3://b/a', lock: {mode: yes}}")).message


def test_no_settings_at_all_are_told_with_the_places_that_were_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    empty = {"HOME": "/root", "KPBACKUP_LOG__LEVEL": "debug"}
    places = "no settings were found: .*KPBACKUP_CONFIG is not set, .*/etc/kpbackup"
    with pytest.raises(errors.SettingsError, match=places) as told:
        config.refuse_nothing(None, empty, config.load(None, empty))
    assert "kpbackup.example.yaml" in told.value.hint
    file = write(tmp_path, "# nothing yet\n")
    with pytest.raises(errors.SettingsError, match="no settings were found") as told:
        config.refuse_nothing(None, empty, config.load(None, empty))
    assert told.value.hint.endswith("--config kpbackup.yaml")
    with pytest.raises(errors.SettingsError, match="kpbackup.yaml is empty"):
        config.refuse_nothing(file, {}, config.load(file, {}))
    for path, environ in ((write(tmp_path, "log: {level: debug}\n"), {}), (None, {"KPBACKUP_REPOSITORY__URL": "file:///srv/b"})):
        config.refuse_nothing(path, environ, config.load(path, environ))
