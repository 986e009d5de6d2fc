"""Damage of any kind, anywhere in a whole small repository (the frozen one): `check` finds it, names the object and its cost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup.model import manifest
from kpbackup.pipeline import encrypt, sign
from kpbackup.repository import catalog, check, heads, keys, layout, objects
from tests.vectors.vector import HOME, Vector

EXAMPLES = int(os.environ.get("KPBACKUP_FUZZ_EXAMPLES", "20"))  # `make fuzz` takes more
KEYS = sorted(path.relative_to(HOME / "repository").as_posix() for path in (HOME / "repository").rglob("*") if path.is_file())
UNNAMED = ("canaries/", "recoveries/")  # their newest may vanish unseen: a head kept outside tells


def audit(vector: Vector, *, opened: bool = True) -> check.Report:
    return check.check(vector.repository(), read_percent=100, identities=vector.identities if opened else ())


def costs(report: check.Report) -> dict[str, str]:
    return {problem.key: problem.costs for problem in report.problems}


def test_the_repository_is_whole_before(tmp_path: Path) -> None:
    report = audit(Vector.thawed(tmp_path / "r"))
    assert report.problems == () and report.opened and len(report.windows) == 2


# -- each kind by name: where it is found, and what it costs


@dataclass(frozen=True)
class Damage:
    """What is done to a thawed repository, which object is named, and a word of what it costs."""

    do: Callable[[Vector], object]
    names: str
    costs: str
    without_identity: bool = True  # found without opening anything


def _flip(path: Path, at: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(bytes(data))


def _data(vector: Vector) -> list[Path]:
    return vector.files("data/0001/")


def _segments(vector: Vector, timeline: str = "0001") -> list[Path]:
    return vector.files(f"timelines/{timeline}/segments/")


def _swap(one: Path, other: Path) -> None:
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def _replay(vector: Vector) -> None:
    """An old manifest in the place of a newer one."""
    first, second = _segments(vector)
    second.write_bytes(first.read_bytes())


def _foreign_set(vector: Vector) -> None:
    """A set of another repository, signed by the same key, in the next place of the log."""
    (path,) = vector.files("timelines/0001/sets/")
    value, _ = vector.repository().read(vector.key_of(path), manifest.BackupSet)
    key = vector.key_of(path)[: -layout.SEQ_DIGITS] + "0000000002"
    head = replace(value.head, repository="00000000-0000-0000-0000-000000000000", key=key, seq=2)
    (vector.directory / key).write_bytes(objects.assemble(replace(value, head=head), vector.signing_key))


def _strangers_signature(vector: Vector) -> None:
    (path,) = vector.files("timelines/0001/sets/")
    value, _ = vector.repository().read(vector.key_of(path), manifest.BackupSet)
    path.write_bytes(objects.assemble(value, sign.SigningKey.generate()))


def _resigned_segment(vector: Vector, *, repository: str | None = None) -> None:
    """The newest segment's manifest signed anew: by a stranger, or by our own key for another repository. Its payload stays."""
    path = _segments(vector)[-1]
    payload = path.read_bytes().split(b"\n", 5)[5]  # behind four lines of signature and one of JSON
    value, _ = vector.repository().read(vector.key_of(path), manifest.BinlogSegment)
    head = replace(value.head, repository=repository or value.head.repository)
    key = vector.signing_key if repository else sign.SigningKey.generate()
    path.write_bytes(objects.assemble(replace(value, head=head), key) + payload)


def _wrong_recipient(vector: Vector) -> None:
    """The data key of the first set, sealed to somebody else."""
    repository = vector.repository()
    (made,) = catalog.read_catalog(repository).histories[0].sets
    opened = keys.open_data_key(repository, made.sealing, vector.identities)
    stranger = encrypt.Identity.generate().recipient
    (path,) = vector.files(layout.key_objects(made.sealing.key_id))
    path.write_bytes(keys.sealed_to(opened, (stranger,)))


DAMAGES = {
    "flipped bit in data": Damage(lambda v: _flip(_data(v)[0]), "data/0001/", "set 0001-1"),
    "flipped bit in a payload": Damage(lambda v: _flip(_segments(v)[0]), "timelines/0001/segments/", "after"),
    "flipped bit in a manifest": Damage(lambda v: _flip(_segments(v)[1], 900), "timelines/0001/segments/", "only this manifest"),
    "cut data": Damage(lambda v: _data(v)[0].write_bytes(_data(v)[0].read_bytes()[:-1]), "data/0001/", "set 0001-1"),
    "cut payload": Damage(
        lambda v: _segments(v)[0].write_bytes(_segments(v)[0].read_bytes()[:-1]), "timelines/0001/segments/", "after"
    ),
    "swapped data": Damage(lambda v: _swap(_data(v)[0], _data(v)[1]), "data/0001/", "set 0001-1"),
    "swapped manifests": Damage(lambda v: _swap(*_segments(v)), "timelines/0001/segments/", "only this manifest"),
    "replayed old manifest": Damage(_replay, "timelines/0001/segments/", "only this manifest"),
    "removed segment": Damage(lambda v: _segments(v)[0].unlink(), "timelines/0001/segments/", "the recoverable points from"),
    "removed data": Damage(lambda v: _data(v)[0].unlink(), "data/0001/", "set 0001-1"),
    "removed key object": Damage(lambda v: v.files("keys/")[0].unlink(), "keys/", ""),
    "foreign set": Damage(_foreign_set, "timelines/0001/sets/", "only this manifest"),
    "changed signature": Damage(_strangers_signature, "timelines/0001/sets/", "only this manifest"),
    "segment of another source": Damage(
        lambda v: _resigned_segment(v, repository="0" * 8 + "-0000-0000-0000-" + "0" * 12), "timelines/0001/segments/",
        "only this manifest",
    ),
    "segment signed by another key": Damage(_resigned_segment, "timelines/0001/segments/", "only this manifest"),
    "wrong recipient": Damage(_wrong_recipient, "keys/", "set 0001-1", without_identity=False),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_kind_of_damage_is_named_by_object_with_what_it_costs(tmp_path: Path, name: str) -> None:
    damage, vector = DAMAGES[name], Vector.thawed(tmp_path / "r")
    damage.do(vector)
    for opened in (True, False) if damage.without_identity else (True,):
        found = costs(audit(vector, opened=opened))
        named = {key: told for key, told in found.items() if key.startswith(damage.names)}
        assert named and all(found.values()), found
        assert any(damage.costs in told for told in named.values()), found


def test_removed_newest_entries_are_found_against_a_head_kept_outside(tmp_path: Path) -> None:
    vector = Vector.thawed(tmp_path / "r")
    repository = vector.repository()
    head = heads.of_repository(repository, catalog.read_catalog(repository))
    _segments(vector, "0002")[-1].unlink()
    assert audit(vector).problems == (), "the store alone does not show it (docs/format.md, 'What cannot be seen')"
    (found,) = check.check(vector.repository(), expected=head).problems
    assert found.key == "timelines/0002/segments" and "recoverable points after" in found.costs


# -- any damage


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(KEYS), st.data())
def test_no_random_damage_goes_unseen(key: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        vector = Vector.thawed(Path(scratch) / "r")
        path = vector.directory / key
        before = path.read_bytes()
        kind = data.draw(st.sampled_from(["flip", "cut", "add", "replace", "remove"]))
        if kind == "flip":
            free = before.index(b"\n") if before.startswith(b"untrusted comment: ") else 0  # any text may stand there
            _flip(path, data.draw(st.integers(free, len(before) - 1)))
        elif kind == "cut":
            path.write_bytes(before[: data.draw(st.integers(0, len(before) - 1))])
        elif kind == "add":
            path.write_bytes(before + data.draw(st.binary(min_size=1, max_size=20)))
        elif kind == "replace":
            other = data.draw(st.sampled_from(KEYS))
            path.write_bytes((vector.directory / other).read_bytes())
        else:
            path.unlink()
        same = path.exists() and path.read_bytes() == before
        assert same or _is_newest(key, kind) or _is_seen(vector), f"{kind} of {key} was not seen"


def _is_newest(key: str, kind: str) -> bool:
    """Whether it is a removal that the store alone cannot show."""
    if kind != "remove":
        return False
    place = layout.parse_log_entry(key)
    newest = max((one for one in KEYS if place and one.startswith(key.rpartition("/")[0])), default="")
    return key == newest or key.startswith(UNNAMED) or key == "timelines/0002/timeline"


def _is_seen(vector: Vector) -> bool:
    from kpbackup import errors

    try:
        return bool(audit(vector).problems)
    except (errors.RepositoryError, errors.IntegrityError, errors.KeyProblem):
        return True  # the binding itself: nothing is read at all
