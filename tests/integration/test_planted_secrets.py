"""Secrets and data with markers of their own, looked for in six places: bucket, logs, errors, metrics, process list, settings.

One story is played on real servers: keys, a full backup, the archive, a restore, a daemon whose page is read, and every error
that has a secret at hand. Each place is then searched by a test of its own, for every secret in every form it may be written in.
`test_each_form_of_each_secret_would_be_found` is the proof that the search finds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from kpbackup import config, errors
from kpbackup.pipeline import bech32
from kpbackup.repository import sealed_identity
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import REGION, S3Server

DATA, NAMES = "d4t4-m4rk3r", "n4m3s-m4rk3r"
SOURCE_PASSWORD, TARGET_PASSWORD = "s0urce-p4ssw0rd %/?", "t4rget-p4ssw0rd"
PASSPHRASE = "p4ssphr4se of five random words"
TOKEN, PAGE_PASSWORD = "b34rer-t0ken-of-the-page", "p4ge-p4ssw0rd"
WEBHOOK, DEADMAN, ROBOT = "w3bh00k-address", "d34dman-address", "r0bot-s1gning-secret"
KINDS = {
    "password of the source", "password of the target", "passphrase", "bearer token", "password of the page", "webhook address",
    "dead-man address", "secret of a robot", "S3 secret key", "private identity", "signing key", "data", "names",
}  # fmt: skip
ANY_IDENTITY = re.compile(rb"AGE-SECRET-KEY-(PQ-)?1[A-Z0-9]{20}")  # a data key's as well: nobody knows their texts
TAG = "STORY_OF_PLANTED_SECRETS"  # in the environment of all its processes, for workers have sessions of their own


@dataclass
class Story:
    """What was planted (kind -> texts and bytes), and what was found in each place (name -> content)."""

    secrets: dict[str, tuple[bytes, ...]]
    bucket: dict[str, bytes] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, bytes] = field(default_factory=dict)
    metrics: dict[str, bytes] = field(default_factory=dict)
    processes: dict[str, bytes] = field(default_factory=dict)
    limits: set[str] = field(default_factory=set)  # of core dumps, of every process seen
    settings: dict[str, bytes] = field(default_factory=dict)

    def assert_absent(self, place: dict[str, bytes], *, but_names_in: Sequence[str] = ()) -> None:
        """No secret in any form, nor any private age key. Names of tables may be told to who restores."""
        for name, content in place.items():
            assert not ANY_IDENTITY.search(content), f"a private key in {name}"
            for kind, values in self.secrets.items():
                if kind == "names" and name in but_names_in:
                    continue
                for form in (form for value in values for form in forms(value)):
                    assert form not in content and form not in name.encode(), f"{kind} in {name}"


def forms(secret: bytes) -> set[bytes]:
    """The ways in which it may have been written: as it is, in hexadecimal, base64 (wherever it begins), a URL, JSON, a repr."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for before in range(3):
        found.add(base64.b64encode(bytes(before) + secret)[4 if before else 0 :].rstrip(b"=")[:-2])
    if secret.isascii():
        text = secret.decode()
        quoted = (urllib.parse.quote(text), urllib.parse.quote(text, safe=""), urllib.parse.quote_plus(text))
        found.update(form.encode() for form in (*quoted, json.dumps(text)[1:-1], repr(text)[1:-1]))
    return found


# -- the story


@pytest.fixture(scope="module")
def core_files_wanted() -> Iterator[None]:
    """What is started here would leave core files, where this user may ask for that."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    yield
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, core_files_wanted: None) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("planted")
    bucket = s3.create_bucket(f"planted-{directory.name[-8:]}-{os.getpid()}")
    with (
        mariadb_server(directory / "source", server_id=273) as source,
        mariadb_server(directory / "target", server_id=274) as target,
    ):
        source.execute(
            f"CREATE USER backup@'%' IDENTIFIED BY '{SOURCE_PASSWORD}'", "GRANT ALL ON *.* TO backup@'%' WITH GRANT OPTION",
            f"CREATE DATABASE `{NAMES}-base`",
            f"CREATE TABLE `{NAMES}-base`.`{NAMES}-table` (`{NAMES}-column` VARCHAR(90) PRIMARY KEY COMMENT '{DATA} comment')",
            f"CREATE USER `{NAMES}-user`@`%` IDENTIFIED BY '{DATA}-password'",
            f"CREATE DEFINER=`{NAMES}-user`@`%` VIEW `{NAMES}-base`.v AS SELECT '{DATA} text' AS v",
            f"INSERT INTO `{NAMES}-base`.`{NAMES}-table` VALUES ('{DATA} value')",
        )  # fmt: skip
        target.execute(f"CREATE USER loader@'%' IDENTIFIED BY '{TARGET_PASSWORD}'",
                       "GRANT ALL ON *.* TO loader@'%' WITH GRANT OPTION")  # fmt: skip
        scene = _scene(directory, source=source, target=target, s3=s3, bucket=bucket)
        made = scene.ok("init", "--keys", str(scene.keys))
        found = Story(_planted(scene, s3))
        opened = directory / "identity.file"  # in the clear too: the passphrase costs a second each time it is used
        opened.write_bytes(found.secrets["private identity"][0])
        opened.chmod(0o600)
        scene.settings["encryption"] |= {"identity_file": str(opened), "recipients": made["recipients"]}
        _work(scene, found, source)
        _daemon(scene, found)
        _errors(scene, found)
        _refused_settings(scene, found)
        _settings(scene, found)
        client = s3.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page["Contents"]:
                answer = client.get_object(Bucket=bucket, Key=entry["Key"])
                found.bucket[entry["Key"]] = answer["Body"].read() + json.dumps(answer["Metadata"]).encode()
        client.close()
        yield found


def _scene(directory: Path, *, source: Server, target: Server, s3: S3Server, bucket: str) -> Scene:
    files = {
        "source": SOURCE_PASSWORD, "target": TARGET_PASSWORD, "passphrase": PASSPHRASE, "token": TOKEN, "page": PAGE_PASSWORD,
        "hook": f"http://127.0.0.1:1/{WEBHOOK}", "alive": f"http://127.0.0.1:1/{DEADMAN}", "robot": ROBOT,
        "aws": f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\nregion = {REGION}\n",
    }  # fmt: skip
    path = {name: directory / f"{name}.file" for name in files}
    for name, text in files.items():
        path[name].write_text(text, encoding="utf-8")
        path[name].chmod(0o600)
    aws = {"SHARED_CREDENTIALS_FILE": str(path["aws"]), "CONFIG_FILE": os.devnull, "DEFAULT_REGION": REGION}
    environ = {TAG: directory.name, **{f"AWS_{name}": value for name, value in aws.items()}}
    place = {"url": f"s3://{bucket}/shop", "endpoint_url": s3.endpoint_url}
    scene = Scene(directory / "scene", source=source, target=target, environ=environ, **place)
    robot = {"name": "robot", "format": "dingtalk", "url_file": str(path["hook"]), "secret_file": str(path["robot"])}
    scene.settings["source"] |= {"name": "shop-db", "user": "backup", "password_file": str(path["source"])}
    scene.settings["recovery"]["target"] |= {"user": "loader", "password_file": str(path["target"])}
    scene.settings |= {
        "encryption": {"passphrase_file": str(path["passphrase"])},
        "notify": {"webhooks": [robot], "deadman_url_file": str(path["alive"]), "attempts": 1, "timeout": "2s"},
        "service": {
            "listen": f"127.0.0.1:{ports.free_port()}",
            "auth": {"user": "page", "password_file": str(path["page"]), "token_file": str(path["token"])},
        },
        "log": {"format": "json", "level": "debug"},
    }
    return scene


def _planted(scene: Scene, s3: S3Server) -> dict[str, tuple[bytes, ...]]:
    identity = sealed_identity.unseal((scene.keys / "identity.age").read_bytes(), PASSPHRASE, what="the identity").reveal()
    signing = (scene.keys / "signing.key").read_text(encoding="utf-8").splitlines()[1]
    return {
        "password of the source": (SOURCE_PASSWORD.encode(),), "password of the target": (TARGET_PASSWORD.encode(),),
        "passphrase": (PASSPHRASE.encode(),), "bearer token": (TOKEN.encode(),), "data": (DATA.encode(),),
        "webhook address": (WEBHOOK.encode(),), "dead-man address": (DEADMAN.encode(),), "secret of a robot": (ROBOT.encode(),),
        "S3 secret key": (s3.secret_key.encode(),), "private identity": (identity.encode(), bech32.decode(identity)[1]),
        "signing key": (signing.encode(), base64.b64decode(signing)[62:94]), "password of the page": (PAGE_PASSWORD.encode(),),
        "names": (NAMES.encode(),),
    }  # fmt: skip


def _work(scene: Scene, found: Story, source: Server) -> None:
    """The verbs, each watched while it runs: what they say is log, their command lines and environments are the process list."""
    for words in (
        ("backup", "full"), ("backup", "incremental"), ("doctor",), ("keys", "canary"), ("check", "--all"),
        ("restore", "database", "--yes", "--to", "latest"),
    ):  # fmt: skip
        if words == ("backup", "incremental"):
            source.execute(f"INSERT INTO `{NAMES}-base`.`{NAMES}-table` VALUES ('{DATA} archived')")
        plain = scene.settings["encryption"]["identity_file"]
        if words[0] == "check":
            scene.settings["encryption"]["identity_file"] = str(scene.keys / "identity.age")
        started = scene.start(*words)
        scene.settings["encryption"]["identity_file"] = plain
        out, err = _watch(started, found)
        assert started.returncode in (0, 1), err
        found.logs[" ".join(words)] = out + err


def _watch(process: subprocess.Popen[str], found: Story) -> tuple[bytes, bytes]:
    """Looks at every process of the story until this one ends; its output."""
    ended: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: ended.append(process.communicate()))
    reader.start()
    while reader.is_alive():
        _look(found)
        time.sleep(0.02)  # no Python program begins and ends between two looks
    reader.join()
    return ended[0][0].encode(), ended[0][1].encode()


def _look(found: Story) -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line, environ = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()
            limits = Path(f"/proc/{pid}/limits").read_text()
        except OSError:
            continue
        if TAG.encode() in environ:
            found.processes[line.decode(errors="replace")] = environ
            if b"-m\0kpbackup\0" not in line:  # one that the program started, so surely past its own first lines
                found.limits.update(row for row in limits.splitlines() if row.startswith("Max core file size"))


def _daemon(scene: Scene, found: Story) -> None:
    log = scene.directory / "daemon.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            scene.argv("daemon"), env=scene.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until(lambda: b"last_success_timestamp_seconds{" in _get(scene, "/metrics"), what="the metrics of a whole reading")
        _look(found)
        for path in ("/metrics", "/", "/api/health", "/api/health/ready", "/nowhere"):
            found.metrics[path] = _get(scene, path)
        found.metrics["refused"] = _get(scene, "/metrics", token="another")
        daemon.terminate()
        assert daemon.wait(60) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()
    found.logs["daemon"] = log.read_bytes()


def _get(scene: Scene, path: str, token: str = TOKEN) -> bytes:
    address = f"http://{scene.settings['service']['listen']}{path}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            content: bytes = answer.read()
            return content + str(answer.headers).encode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.read() + str(refusal.headers).encode()
    except OSError:
        return b""


def _errors(scene: Scene, found: Story) -> None:
    """Every error that has a secret at hand: refused logins, wrong keys, spoilt files, secrets where none may be."""
    plain = scene.settings

    def fails(name: str, *words: str, environ: dict[str, str] | None = None, **groups: object) -> None:
        scene.settings = {**plain, **{key: _joined(plain.get(key, {}), value) for key, value in groups.items()}}
        before, scene.environ = scene.environ, {**scene.environ, **(environ or {})}
        ended = scene.run("--json", "--log-level", "debug", *words)
        scene.settings, scene.environ = plain, before
        assert ended.code >= 10 and "kpbackup: " in ended.err and "hint:" in ended.err, (name, ended)
        found.errors[name] = (ended.out + ended.err).encode()

    def spoilt(name: str, text: str) -> str:
        path = scene.directory / f"{name}.spoilt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    identity = found.secrets["private identity"][0].decode()
    signing = found.secrets["signing key"][0].decode()
    key = Path(scene.environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text(encoding="utf-8")
    fails("login refused", "backup", "full", source={"password_file": spoilt("login", SOURCE_PASSWORD + "x"), "user": "nobody"})
    fails("server away", "backup", "incremental", source={"port": 1})
    fails("target refuses", "restore", "database", "--yes", recovery={
        "target": {**plain["recovery"]["target"], "password_file": spoilt("target", TARGET_PASSWORD + "x")}})  # fmt: skip
    wrong_key = key.replace("aws_secret_access_key = ", "aws_secret_access_key = x")
    fails("wrong S3 key", "list", environ={"AWS_SHARED_CREDENTIALS_FILE": spoilt("aws", wrong_key)})
    sealed, wrong = str(scene.keys / "identity.age"), spoilt("passphrase", PASSPHRASE + "x")
    fails("wrong passphrase", "check", encryption={"identity_file": sealed, "passphrase_file": wrong})
    for name, text in (("spoilt identity", identity[:-1] + "?"), ("two identities", f"{identity}\n{identity} x")):
        fails(name, "check", encryption={"identity_file": spoilt(name, text), "passphrase_file": None})
    half = spoilt("signing", f"untrusted comment: x\n{signing[:-3]}?")
    fails("spoilt signing key", "backup", "full", signing={"key_file": half})
    fails("target not empty", "restore", "database", "--yes", "--to", "latest", recovery={"target": {
        **plain["recovery"]["target"], "host": plain["source"]["host"], "port": plain["source"]["port"], "user": "backup",
        "password_file": plain["source"]["password_file"]}})  # fmt: skip


def _refused_settings(scene: Scene, found: Story) -> None:
    """Secrets where none may be: what the settings say to each."""
    identity, signing = (found.secrets[kind][0].decode() for kind in ("private identity", "signing key"))
    plain: dict[str, dict[str, object]] = scene.settings
    addresses: dict[str, object] = {"webhooks": [{"name": "x", "url": f"http://x/{WEBHOOK}"}]}
    cases: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
        "identity as recipient": ("encryption", {"recipients": [identity]}, {}),
        "signing key as public one": ("signing", {"public_keys": [signing]}, {}),
        "password in the settings": ("source", {"password": SOURCE_PASSWORD}, {}),
        "dead-man address in the settings": ("notify", {"deadman_url": f"http://127.0.0.1:1/{DEADMAN}"}, {}),
        "webhook in the settings": ("notify", addresses, {}),
        "password in the URL": ("repository", {"url": f"https://user:{PAGE_PASSWORD}@host/bucket"}, {}),
        "password twice": ("source", {}, {"KPBACKUP_SOURCE__PASSWORD": SOURCE_PASSWORD}),
        "misspelt variable": ("source", {}, {"KPBACKUP_SOURCE__PASSWORT": SOURCE_PASSWORD}),
        "token for its file": ("service", {"auth": {"token": TOKEN}}, {}),
    }
    for name, (group, changed, variables) in cases.items():
        path = scene.directory / "refused.yaml"
        path.write_text(yaml.safe_dump({**plain, group: {**plain[group], **changed}}), encoding="utf-8")
        with pytest.raises(errors.SettingsError) as caught:
            config.load(path, variables)
        assert caught.value.hint, name
        found.errors[name] = f"{caught.value.message}\n{caught.value.hint}\n{caught.value!r}".encode()


def _joined(one: object, other: object) -> object:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    joined = {**one, **other}
    return {key: value for key, value in joined.items() if value is not None}


def _settings(scene: Scene, found: Story) -> None:
    """The settings as any debugger, log line or error report would write them, with secrets given by the environment too."""
    variables = {"KPBACKUP_SOURCE__PASSWORD": SOURCE_PASSWORD, "KPBACKUP_RECOVERY__TARGET__PASSWORD": TARGET_PASSWORD}
    del scene.settings["source"]["password_file"], scene.settings["recovery"]["target"]["password_file"]
    path = Path(scene.argv()[-1])
    settings = config.load(path, variables)
    assert settings.source_password().get_secret_value() == SOURCE_PASSWORD
    shown = (settings.source_password(), settings.need_identity(), settings.need_passphrase(), *settings.need_signing_key())
    found.settings = {
        "repr": repr(settings).encode(), "str": str(settings).encode(), "JSON": settings.model_dump_json().encode(),
        "dump": repr(settings.model_dump()).encode(), "secrets read": repr(shown).encode() + "".join(map(str, shown)).encode(),
        "file": path.read_bytes(),
    }  # fmt: skip


# -- the six places, and the search itself


def test_everything_was_planted(story: Story) -> None:
    assert set(story.secrets) == KINDS and all(all(len(one) >= 8 for one in values) for values in story.secrets.values())


def test_the_bucket(story: Story) -> None:
    named = {key.split("/")[1] for key in story.bucket}
    assert {"kpbackup.json", "keys", "data", "timelines", "recoveries", "canaries", "identities"} <= named, "all was looked at"
    story.assert_absent(story.bucket)


def test_the_logs(story: Story) -> None:
    everything = b"".join(story.logs.values())
    assert b'"event": "notification_lost"' in everything and b'"level": "debug"' in everything, "with the addresses at hand"
    story.assert_absent(story.logs, but_names_in=["restore database --yes --to latest"])


def test_the_errors(story: Story) -> None:
    assert len(story.errors) == 18, sorted(story.errors)
    story.assert_absent(story.errors, but_names_in=["target not empty"])


def test_the_metrics(story: Story) -> None:
    assert b"kpbackup_recovery_point_timestamp_seconds" in story.metrics["/metrics"] and b"<html" in story.metrics["/"]
    assert b"kpbackup_" not in story.metrics["refused"]
    story.assert_absent(story.metrics)


def test_the_process_list(story: Story) -> None:
    lines = "\n".join(story.processes).replace("\0", " ")
    for seen in (" backup full", " backup incremental", " restore database", " daemon", "dump_worker", "load_worker"):
        assert seen in lines, f"{seen} was not caught"
    story.assert_absent(story.processes)


def test_the_settings_and_no_core_dump(story: Story) -> None:
    assert b"shop-db" in story.settings["repr"] and b"**********" in story.settings["repr"]
    story.assert_absent(story.settings)
    assert {tuple(limit.split()[4:6]) for limit in story.limits} == {("0", "0")}, "a core file would hold every key in memory"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_form_of_each_secret_would_be_found(story: Story, kind: str) -> None:
    for value in story.secrets[kind]:
        leaks = [value, base64.b64encode(b"{" + value + b"}"), base64.b64encode(b"{{" + value), value.hex().encode()]
        if value.isascii():
            leaks += [urllib.parse.quote(value.decode(), safe="").encode(), json.dumps({"x": value.decode()}).encode()]
        for leak in leaks:
            with pytest.raises(AssertionError, match=kind if not ANY_IDENTITY.search(leak) else "private key"):
                story.assert_absent({"a place": b"before " + leak + b" after"})
    with pytest.raises(AssertionError):
        story.assert_absent({f"key/{story.secrets['data'][0].decode()}": b""})
