"""The reading verbs, check, prune and doctor against a real source and a repository in a directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.plan import retention
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import check as checks
from kpbackup.repository import lease, prune
from kpbackup.service import opening, reading, trust
from tests.integration.deployment import Deployment, deploy, order
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A deployment with two sets and three segments, its source still running."""
    directory = tmp_path_factory.mktemp("verbs")
    with mariadb_server(directory / "mariadb", server_id=61) as source:
        made = deploy(directory / "deployment", source)
        made.json("backup", "full")
        order(source, "first")
        made.json("backup", "incremental")
        order(source, "second")
        made.json("backup", "incremental")
        made.json("backup", "full")
        order(source, "third")
        made.json("backup", "incremental")
        yield made, source


@pytest.fixture
def copy(stocked: tuple[Deployment, Server], tmp_path: Path) -> Deployment:
    """The same with a repository of its own that may be spoilt."""
    made, _ = stocked
    shutil.copytree(made.store, tmp_path / "repository")
    settings = json.loads(json.dumps(made.settings))
    settings["repository"]["url"] = (tmp_path / "repository").as_uri()
    found = Deployment(tmp_path, settings)
    found.write()
    return found


def test_init_takes_the_keys_that_the_settings_name(stocked: tuple[Deployment, Server], tmp_path: Path) -> None:
    """A second repository, or keys from a Secret: nothing new is made, and the first backup is sealed and signed with them."""
    made, _ = stocked
    second = Deployment(tmp_path, made.settings | {"repository": {"url": (tmp_path / "repository").as_uri()}})
    second.write()
    report = second.json("init", "--keys", str(tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()
    assert report["identity_file"] is None
    assert [report["recipient"]] == report["recipients"] == made.settings["encryption"]["recipients"]
    assert report["signing_key_file"] == made.settings["signing"]["key_file"]
    assert second.json("backup", "full")["set"] == "0001-1"
    assert second.json("check")["intact"] is True


def test_init_refuses_a_named_signing_key_that_is_not_there(stocked: tuple[Deployment, Server], tmp_path: Path) -> None:
    made, _ = stocked
    signing = made.settings["signing"] | {"key_file": str(tmp_path / "not-mounted.key")}
    second = Deployment(tmp_path, made.settings | {"signing": signing, "repository": {"url": (tmp_path / "repository").as_uri()}})
    second.write()
    assert "not-mounted.key" in second.json("init", "--keys", str(tmp_path / "keys"), code=18)["error"]["message"]
    assert not (tmp_path / "keys").exists() or not (tmp_path / "keys" / "signing.key").exists()


def test_list_shows_windows_sets_and_archive(stocked: tuple[Deployment, Server]) -> None:
    made, _ = stocked
    listed = made.json("list")
    (window,) = listed["windows"]
    assert window["start"] == listed["sets"][0]["clock"] and window["end"] > listed["sets"][1]["clock"]
    assert (window["sets"], window["gap"]) == (["0001-1", "0001-2"], None)
    assert [one["state"] for one in listed["sets"]] == ["stored", "stored"]
    assert listed["sets"][1]["rows"] >= 1002 and listed["archive"][0]["segments"] == 3
    text = made.run("list").stdout
    assert "recoverable windows" in text and "0001-2  stored" in text and "shop.orders" not in text


def test_list_warnings_needs_the_identity(stocked: tuple[Deployment, Server]) -> None:
    made, _ = stocked
    refused = made.run("list", "--warnings", "0001-1")
    assert refused.returncode == 11 and "encryption.identity_file" in refused.stderr
    shown = made.json("--set", f"encryption.identity_file={made.keys / 'identity.txt'}", "list", "--warnings", "0001-1")
    assert shown["set"] == "0001-1" and isinstance(shown["warnings"], list)
    assert made.run("list", "--warnings", "0009-1").returncode == 10


def test_status_exit_codes(stocked: tuple[Deployment, Server], tmp_path: Path) -> None:
    made, _ = stocked
    found = made.json("status")
    assert (found["level"], found["chain_intact"], found["sets"], found["source"]) == ("ok", True, 2, "shop-db")
    assert found["achieved_rpo_seconds"] < 1800 and found["last_success"]["restore"] is None
    critical = made.run("--set", "objectives.rpo=1ms", "status")
    assert critical.returncode == 2 and "achieved RPO" in critical.stdout
    nothing = made.run("--set", f"repository.url={(tmp_path / 'nothing').as_uri()}", "status")
    assert nothing.returncode == 16 and "no kpbackup repository" in nothing.stderr


@pytest.mark.slow
def test_status_is_unknown_while_the_store_is_away(stocked: tuple[Deployment, Server], aws_environment: None) -> None:
    made, _ = stocked
    away = ("--set", "repository.url=s3://bucket/shop", "--set", f"repository.endpoint_url=http://127.0.0.1:{ports.free_port()}")
    ended = made.run(*away, "status", "--json", timeout_s=300)
    assert ended.returncode == 3
    found = json.loads(ended.stdout)
    assert found["level"] == found["reasons"][0]["level"] == "unknown"
    assert "s3://bucket/shop" in found["reasons"][0]["text"]


def test_status_without_a_set_is_critical(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    found = made.json("status", code=2)
    assert found["reasons"] == [{"level": "critical", "text": "there is no backup set: nothing can be restored"}]
    assert made.json("list")["windows"] == []


def objects(made: Deployment, pattern: str) -> list[Path]:
    store = Path(made.settings["repository"]["url"].removeprefix("file://"))
    return sorted(path for path in store.glob(pattern) if path.is_file())


def flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def problems(made: Deployment, *words: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = made.json("check", *words, code=17)["problems"]
    return found


def test_check_passes_on_what_kpbackup_wrote(stocked: tuple[Deployment, Server]) -> None:
    made, _ = stocked
    found = made.json("check", "--all")
    assert found["intact"] and found["read_objects"] == found["objects"] > 5 and not found["opened"]
    opened = made.json("--set", f"encryption.identity_file={made.keys / 'identity.txt'}", "check", "--read-data", "50%")
    assert opened["opened"] and 0 < opened["read_objects"] < opened["objects"]
    for words in (("--read-data", "0%"), ("--read-data", "many"), ("--all", "--read-data", "5%")):
        assert made.run("check", *words).returncode == 10


def spoil_flip_data(made: Deployment) -> Path:
    path = objects(made, "data/0001/*/000000")[0]
    flip(path)
    return path


def spoil_flip_segment_payload(made: Deployment) -> Path:
    path = objects(made, "timelines/0001/segments/*/*")[0]
    flip(path)
    return path


@pytest.mark.parametrize("spoil", [spoil_flip_data, spoil_flip_segment_payload])
@pytest.mark.parametrize("with_identity", [False, True])
def test_check_finds_a_flipped_bit(copy: Deployment, spoil: Callable[[Deployment], Path], with_identity: bool) -> None:
    path = spoil(copy)
    if with_identity:
        signing = copy.settings["signing"]["key_file"]
        copy.settings["encryption"]["identity_file"] = str(Path(signing).parent / "identity.txt")
        copy.write()
    assert copy.run("check").returncode == 0  # sizes alone do not tell
    (problem,) = problems(copy, "--all")
    assert str(path).endswith(problem["key"])


def test_check_finds_flipped_manifests(copy: Deployment) -> None:
    path = objects(copy, "timelines/0001/segments/*/*")[1]
    flip(path, at=600)
    found = problems(copy)
    assert any(str(path).endswith(one["key"]) for one in found)
    assert any("missing or damaged" in one["what"] for one in found)
    status = copy.json("status", code=2)
    assert status["damaged_manifests"] == 1 and not status["chain_intact"] and status["gaps"]
    assert copy.run("prune").returncode == 16
    told = last_prune(copy)
    assert told is not None and not told.passed


@pytest.mark.parametrize("pattern", ["data/0001/*/000000", "data/0001/*/inventory", "timelines/0001/segments/*/*"])
def test_check_finds_a_cut_object(copy: Deployment, pattern: str) -> None:
    path = objects(copy, pattern)[0]
    path.write_bytes(path.read_bytes()[:-1])
    (problem,) = problems(copy)
    assert str(path).endswith(problem["key"]) and "bytes" in problem["what"]


def test_check_finds_missing_objects(copy: Deployment) -> None:
    first, second = objects(copy, "timelines/0001/sets/*/*")
    assert second.name > first.name
    for path in (first, objects(copy, "data/0001/*/000000")[-1], objects(copy, "reader-1.py")[0], *objects(copy, "keys/*/*")):
        path.unlink()
    found = problems(copy)
    assert {"it is missing", "the key object is missing", "entry 1 is missing", "it or its signature is missing"} <= {
        one["what"] for one in found
    }
    assert all(one["costs"] for one in found)


def test_check_finds_a_missing_segment(copy: Deployment) -> None:
    objects(copy, "timelines/0001/segments/*/*")[1].unlink()
    assert any("segments 2 to 2 are missing" in one["what"] for one in problems(copy))


def test_check_finds_swapped_objects(copy: Deployment) -> None:
    first, second = (path.parent / "inventory" for path in objects(copy, "data/0001/*/inventory"))
    left, right = first.read_bytes(), second.read_bytes()
    first.write_bytes(right)
    second.write_bytes(left)
    assert len(problems(copy, "--all")) == 2
    one, other = objects(copy, "timelines/0001/segments/*/*")[:2]
    left, right = one.read_bytes(), other.read_bytes()
    one.write_bytes(right)
    other.write_bytes(left)
    assert sum("moved or copied" in found["what"] for found in problems(copy)) == 2


def test_check_finds_a_moved_manifest(copy: Deployment) -> None:
    newest = objects(copy, "timelines/0001/sets/*/*")[-1]
    newest.rename(newest.with_name("0000000003"))
    found = problems(copy)
    assert any("moved or copied" in one["what"] for one in found)
    assert any("entry 2 is missing" in one["what"] for one in found)


def test_check_finds_a_flipped_key_object_with_the_identity(copy: Deployment) -> None:
    path = objects(copy, "keys/*/*")[0]
    flip(path)
    assert copy.run("check", "--all").returncode == 0  # nobody but the identity can tell
    identity = Path(copy.settings["signing"]["key_file"]).parent / "identity.txt"
    copy.settings["encryption"]["identity_file"] = str(identity)
    copy.write()
    assert any(path.parent.name in one["key"] for one in problems(copy))


def test_everybody_sees_from_the_bucket_what_the_last_check_found(copy: Deployment) -> None:
    shutil.rmtree(Path(copy.settings["repository"]["url"].removeprefix("file://")) / "reports", ignore_errors=True)
    assert copy.json("status")["last_check"] is None
    found = copy.json("check", "--read-data", "50%")
    seen = copy.json("status")["last_check"]
    assert (seen["passed"], seen["signed"], seen["problems"]) == (True, True, 0)
    assert (seen["objects"], seen["read_objects"], seen["read_bytes"]) == tuple(
        found[name] for name in ("objects", "read_objects", "read_bytes")
    )
    assert seen["read_bytes"] > 0 and copy.json("status")["last_success"]["check"] == seen["ended_at"]
    damaged = objects(copy, "data/*/*/0*")[0]
    before = damaged.read_bytes()
    damaged.unlink()
    copy.json("check", code=17)
    status = copy.json("status", code=2)
    assert (status["last_check"]["passed"], status["last_check"]["problems"]) == (False, 1)
    assert status["last_success"]["check"] == seen["ended_at"]
    assert "1 problems; `kpbackup check` says what" in "".join(one["text"] for one in status["reasons"])
    assert "FAILED, 1 problems" in copy.run("status").stdout
    damaged.write_bytes(before)
    unsigned = copy.settings["signing"] | {"key_file": None}
    copy.settings["signing"] = unsigned
    copy.write()
    assert copy.json("check")["intact"]
    assert "nothing wrong" in copy.run("status").stdout and "report not signed" in copy.run("status").stdout


def test_a_check_that_may_not_write_answers_all_the_same(copy: Deployment) -> None:
    reports = Path(copy.settings["repository"]["url"].removeprefix("file://")) / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.write_text("in the way")
    ended = copy.run("check")
    assert ended.returncode == 0 and "no problem found" in ended.stdout
    assert "warning: status and metrics will not know of this check" in ended.stderr


def test_prune_releases_then_deletes(copy: Deployment) -> None:
    settings = copy.load()
    repository = opening.writing_repository(settings)
    policy = retention.Policy(days=1, complete_chains=1, grace_period=timedelta(hours=12))
    later = datetime.now(UTC) + timedelta(days=3)
    shutil.rmtree(objects(copy, "kpbackup.json")[0].parent / "reports", ignore_errors=True)
    before = objects(copy, "**/*")
    catalog = catalogs.read_catalog(repository)
    plan = retention.plan_prune(catalog, policy, later)
    sets = [(one.name, one.keep) for one in plan.decisions if one.name.startswith("set")]
    assert sets == [("set 0001-1", False), ("set 0001-2", True)]
    done = prune.execute(repository, catalog, plan, policy, later)
    assert (done.sets, done.segments, done.deleted) == (1, 2, 0)
    with pytest.raises(errors.RepositoryError, match="pruned after this plan"):
        prune.execute(repository, catalog, plan, policy, later)
    assert len(objects(copy, "data/*/*/*")) == sum("/data/" in str(path) for path in before)  # the grace period runs
    catalog = catalogs.read_catalog(repository)
    assert [one.name for one in catalog.histories[0].sets] == ["0001-2"]
    for days in (1, 2):  # a prune each day: a newer anchor must not hold up an older one
        now = later + timedelta(days=days)
        catalog = catalogs.read_catalog(repository)
        prune.execute(repository, catalog, retention.plan_prune(catalog, policy, now), policy, now)
    assert len(objects(copy, "data/0001/*/inventory")) == 1
    assert len(objects(copy, "timelines/0001/segments/*/*")) == 1
    assert len(objects(copy, "keys/*/*")) == 2  # of the kept set and the kept segment
    report = checks.check(opening.reading_repository(settings), read_percent=100)
    assert report.problems == ()
    assert len(report.windows) == 1


def test_prune_dry_run_changes_nothing(copy: Deployment) -> None:
    before = {path: path.read_bytes() for path in objects(copy, "**/*")}
    shown = copy.json("prune", "--dry-run")
    assert shown["dry_run"] and all(one["reason"] for one in shown["decisions"]) and shown["deleted_objects"] is None
    assert {path: path.read_bytes() for path in objects(copy, "**/*")} == before
    assert last_prune(copy) is None
    done = copy.json("prune")
    told = last_prune(copy)
    assert done["released_sets"] == 0 and told is not None
    assert (told.passed, told.deleted, told.renewed_locks) == (True, done["deleted_objects"], 0)


def last_prune(made: Deployment) -> trust.Prune | None:
    """What a process that only reads the repository knows of prunes."""
    return reading.trust_of(made.load(), reading.Reader(made.open()).read()).last_prune


def test_prune_is_held_off_by_another(copy: Deployment) -> None:
    repository = opening.writing_repository(copy.load())
    with lease.acquire(repository, "prune", holder="someone else", ttl_s=6):
        held = copy.run("prune")
    assert held.returncode == 19 and "someone else" in held.stderr


def findings(made: Deployment, *options: str, code: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"error": [], "warning": [], "ok": []}
    for one in made.json(*options, "doctor", code=code)["findings"]:
        found[one["severity"]].append(f"{one['area']}: {one['what']}")
        assert one["severity"] == "ok" or (one["why"] and one["mend"]), one
    return found


def test_doctor_is_content(stocked: tuple[Deployment, Server]) -> None:
    made, _ = stocked
    found = findings(made, code=0)
    assert found["error"] == []
    assert any("conditional writes" in one for one in found["ok"]) and any("agree to" in one for one in found["ok"])
    assert any("one recipient" in one for one in found["warning"])


def test_doctor_names_what_must_be_mended(stocked: tuple[Deployment, Server], tmp_path: Path) -> None:
    made, source = stocked
    identity = made.keys / "identity.txt"
    found = findings(made, "--set", f"encryption.identity_file={identity}", code=0)
    assert any("lies on the machine that makes backups" in one for one in found["warning"])
    assert "keys: the identity opens the newest backup" in found["ok"]

    other = tmp_path / "other"
    stranger = Deployment(tmp_path, {"source": made.settings["source"], "repository": {"url": (tmp_path / "elsewhere").as_uri()}})
    stranger.write()
    assert stranger.run("init", "--keys", str(other)).returncode == 0
    found = findings(made, "--set", f"encryption.identity_file={other / 'identity.txt'}", code=29)
    assert any("no identity given opens" in one for one in found["error"])
    found = findings(made, "--set", f"signing.key_file={other / 'signing.key'}", code=29)
    assert any("not among signing.public_keys" in one for one in found["error"])

    source.execute("CREATE USER poor@'%' IDENTIFIED BY 'p'", "GRANT SELECT ON shop.* TO poor@'%'")
    source.execute("SET GLOBAL binlog_format='STATEMENT'")
    try:
        ended = made.run("--set", "source.user=poor", "--set", f"source.password_file={password(tmp_path)}", "doctor")
    finally:
        source.execute("SET GLOBAL binlog_format='ROW'", "DROP USER poor@'%'")
    assert ended.returncode == 29
    assert "binlog_format is STATEMENT" in ended.stdout and "mend: GRANT REPLICATION SLAVE" in ended.stdout


def test_doctor_without_a_source_or_a_repository(stocked: tuple[Deployment, Server], tmp_path: Path) -> None:
    made, _ = stocked
    found = findings(made, "--set", "source.port=1", code=29)
    assert len(found["error"]) == 1 and "cannot connect" in found["error"][0]
    found = findings(made, "--set", f"repository.url={(tmp_path / 'nothing').as_uri()}", code=29)
    assert any("no kpbackup repository" in one for one in found["error"])


def password(directory: Path) -> Path:
    path = directory / "password"
    path.write_text("p\n", encoding="utf-8")
    path.chmod(0o600)
    return path
