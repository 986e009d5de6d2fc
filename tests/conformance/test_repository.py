"""The repository on real stores: opening, fences, the catalog with damage in it, data keys, journals."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model import manifest as m
from kpbackup.model.coordinates import Coordinates
from kpbackup.pipeline import encrypt, sign
from kpbackup.plan import chain
from kpbackup.recovery import journal
from kpbackup.repository import binding, catalog, keys, layout, objects
from kpbackup.repository.binding import Repository
from kpbackup.storage import Backend
from tests.conformance.conftest import CREATED
from tests.histories import Source

MONTHS_END = datetime(2026, 4, 30, 23, 59, 59, 999_000, tzinfo=UTC)


# -- creating and opening


def test_a_new_repository_can_be_opened(repository: Repository, signing_key: sign.SigningKey) -> None:
    found = binding.open_repository(repository.backend, public_keys=(signing_key.public_key,))
    assert found.binding == repository.binding and found.id == repository.id
    assert (found.binding.source, found.binding.flavour) == ("db:3306", "mariadb")
    with pytest.raises(errors.KeyProblem, match="needs a signing key"):
        found.need_signing_key()
    assert catalog.read_catalog(found).histories == ()
    assert catalog.read_current(found) is None


def test_the_reader_lies_beside_it_signed(repository: Repository) -> None:
    text = repository.backend.read("reader-1.py")
    assert text == resources.files("kpbackup.repository").joinpath("reader.py").read_bytes()
    signature = repository.backend.read("reader-1.py.minisig").decode()
    assert "reader 1" in sign.verify(text, signature, repository.public_keys)
    with pytest.raises(errors.IntegrityError):
        sign.verify(text + b"#", signature, repository.public_keys)


def test_where_there_is_none(store: Backend, signing_key: sign.SigningKey) -> None:
    with pytest.raises(errors.RepositoryError, match="no kpbackup repository") as refused:
        binding.open_repository(store, public_keys=(signing_key.public_key,))
    assert "kpbackup init" in refused.value.hint


def test_a_second_creation_changes_nothing(repository: Repository) -> None:
    before = list(repository.backend.list(""))
    with pytest.raises(errors.RepositoryError, match="already"):
        binding.create_repository(
            repository.backend, signing_key=sign.SigningKey.generate(), source="x", flavour="mysql", created_at=CREATED
        )
    assert list(repository.backend.list("")) == before


def test_of_many_creators_one_wins(store: Backend) -> None:
    def create(number: int) -> str | None:
        try:
            key = sign.SigningKey.generate()
            return binding.create_repository(store, signing_key=key, source=str(number), flavour="mysql", created_at=CREATED).id
        except errors.RepositoryError:
            return None

    with ThreadPoolExecutor(4) as pool:
        (winner,) = [found for found in pool.map(create, range(4)) if found]
    assert winner.encode() in store.read(layout.BINDING)


def test_the_wrong_public_key(repository: Repository) -> None:
    with pytest.raises(errors.KeyProblem, match=r"kpbackup\.json"):
        binding.open_repository(repository.backend, public_keys=(sign.SigningKey.generate().public_key,))
    with pytest.raises(errors.KeyProblem, match="without a signing public key"):
        binding.open_repository(repository.backend, public_keys=())
    several = (sign.SigningKey.generate().public_key, *repository.public_keys)
    assert binding.open_repository(repository.backend, public_keys=several).id == repository.id


@pytest.mark.parametrize("damage", [lambda data: data[:-20] + b"X" + data[-19:], lambda data: data[:40], lambda data: b""])
def test_a_damaged_binding(repository: Repository, damage: Callable[[bytes], bytes]) -> None:
    repository.backend.put(layout.BINDING, [damage(repository.backend.read(layout.BINDING))])
    with pytest.raises(errors.IntegrityError, match=r"kpbackup\.json"):
        binding.open_repository(repository.backend, public_keys=repository.public_keys)


# -- fences


def observation(repository: Repository, key: str, created_at: datetime, seq: int = 1) -> m.ObservationManifest:
    head = repository.head("observation", key=key, created_at=created_at, timeline="0001", seq=seq)
    return m.ObservationManifest(head, m.Observation(created_at, Coordinates("b", 4)), 0, "00" * 32)


def timeline(repository: Repository, created_at: datetime = CREATED) -> None:
    head = repository.head("timeline", key=layout.timeline("0001"), created_at=created_at, timeline="0001")
    repository.create(m.Timeline(head, "first", "mariadb", "10.11", ""))


def test_of_two_writers_of_one_number_one_wins(repository: Repository) -> None:
    timeline(repository)
    seq, key = catalog.next_place(catalog.read_history(repository, "0001"), "observations")
    assert (seq, key) == (1, "timelines/0001/observations/2026-04/0000000001")
    start = threading.Barrier(4)

    def write(number: int) -> bool:
        value = observation(repository, key, CREATED + timedelta(microseconds=number))
        start.wait()
        try:
            repository.create(value)
        except errors.ObjectExists:
            return False
        return repository.read(key, m.ObservationManifest)[0] == value

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(write, range(4))) == [False, False, False, True]


def test_the_fence_holds_at_a_months_end(repository: Repository) -> None:
    """Two writers whose clocks are on both sides of midnight know the same predecessor, so they compute one key."""
    timeline(repository, MONTHS_END)
    first = catalog.read_history(repository, "0001")
    repository.create(observation(repository, catalog.next_place(first, "observations")[1], MONTHS_END))
    places, refused = [], 0
    histories = [catalog.read_history(repository, "0001") for _ in range(2)]
    for history, clock in zip(histories, (MONTHS_END, MONTHS_END + timedelta(milliseconds=2)), strict=True):
        seq, key = catalog.next_place(history, "observations")
        places.append(key)
        try:
            repository.create(observation(repository, key, clock, seq))
        except errors.ObjectExists:
            refused += 1
    assert set(places) == {"timelines/0001/observations/2026-04/0000000002"} and refused == 1
    late = observation(repository, "timelines/0001/observations/2026-04/0000000003", MONTHS_END + timedelta(days=31), 3)
    repository.create(late)
    assert catalog.next_place(catalog.read_history(repository, "0001"), "observations") == (
        4, "timelines/0001/observations/2026-05/0000000004",
    )
    found = [info.key for info in repository.backend.list(layout.log_prefix("0001", "observations"))]
    assert [layout.parse_log_entry(key) for key in found] == [("0001", "observations", seq) for seq in (1, 2, 3)]


def test_a_reader_without_a_signing_key_writes_no_manifest(repository: Repository) -> None:
    reader = dataclasses.replace(repository, signing_key=None)
    with pytest.raises(errors.KeyProblem):
        timeline(reader)
    assert list(repository.backend.list(layout.TIMELINES)) == []


# -- manifests of any size


@pytest.mark.parametrize("objects_in_it", [0, 90, 160, 1_200])
@pytest.mark.parametrize("payload", [b"", b"\n\n\nline\n" * 3_000])
def test_a_manifest_longer_than_the_first_read(repository: Repository, objects_in_it: int, payload: bytes) -> None:
    source = Source(repository=repository.id)
    source.back_up()
    stored = tuple(m.StoredObject(f"data/0001/x/{number:06d}", number, "ab" * 32) for number in range(objects_in_it))
    value = dataclasses.replace(source.sets[0], objects=stored)
    repository.create(value, payload=payload)
    found, offset = repository.read(value.head.key, m.BackupSet)
    assert found == value
    assert b"".join(repository.backend.get(value.head.key, offset=offset)) == payload
    if objects_in_it > 150:
        assert offset > objects.HEAD_BYTES


# -- the catalog


def publish(repository: Repository, source: Source) -> None:
    for value, payload in source.manifests():
        repository.create(value, payload=payload)


def filled(repository: Repository) -> Source:
    """Three sets, five segments, two observations."""
    source = Source(repository=repository.id)
    for _ in range(3):
        source.commit()
        source.back_up()
        source.commit()
        source.archive(most=1)
        source.archive()
    publish(repository, source)
    return source


def test_the_catalog_is_what_was_written(repository: Repository) -> None:
    source = filled(repository)
    (found,) = catalog.read_catalog(repository).histories
    assert found == dataclasses.replace(source.history(), newest=found.newest)
    assert found.newest["sets"] == (3, source.sets[-1].head.created_at)
    assert found.newest["segments"] == (len(source.segments), source.segments[-1].head.created_at)
    tail = catalog.read_current(repository)
    assert tail is not None and tail.segments == (source.segments[-1],) and tail.newest == found.newest


def test_two_timelines_are_listed_oldest_first(repository: Repository) -> None:
    old = filled(repository)
    new = old.restored(2)
    new.back_up()
    publish(repository, new)
    found = catalog.read_catalog(repository)
    assert [history.id for history in found.histories] == ["0001", "0002"]
    assert found.current is not None and found.current.id == "0002"
    current = catalog.read_current(repository)
    assert current is not None and current.id == "0002"


def flip(data: bytes) -> bytes:
    place = data.index(b'"created_at"') + 20
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[Repository, m.BinlogSegment, bytes], bytes]] = {
    "a flipped bit": lambda repository, segment, data: flip(data),
    "cut": lambda repository, segment, data: data[:300],
    "empty": lambda repository, segment, data: b"",
    "not text": lambda repository, segment, data: b"\xff\xfe" * 200 + b"\n" * 9,
    "moved": lambda repository, segment, data: repository.backend.read(
        layout.log_entry("0001", "segments", month_of=CREATED, seq=1)
    ),
    "foreign key": lambda repository, segment, data: objects.assemble(segment, sign.SigningKey.generate()),
    "foreign repository": lambda repository, segment, data: objects.assemble(
        dataclasses.replace(segment, head=dataclasses.replace(segment.head, repository="another")), repository.need_signing_key()
    ),
    "another kind": lambda repository, segment, data: objects.assemble(
        m.Anchor(dataclasses.replace(segment.head, kind="anchor"), 1, "00" * 32), repository.need_signing_key()
    ),
    "a wrong type": lambda repository, segment, data: objects.assemble(
        dataclasses.replace(segment, raw_bytes="many"), repository.need_signing_key()  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_manifest_costs_only_itself(repository: Repository, kind: str) -> None:
    source = filled(repository)
    hit = source.segments[1]
    data = DAMAGES[kind](repository, hit, repository.backend.read(hit.head.key))
    repository.backend.put(hit.head.key, [data])
    found = catalog.read_catalog(repository)
    assert [one.key for one in found.damaged] == [hit.head.key] and found.damaged[0].reason
    (history,) = found.histories
    assert history.damaged == found.damaged
    assert history.sets == tuple(source.sets)
    assert history.segments == tuple(s for s in source.segments if s is not hit)
    assert len(chain.runs(history)[1]) == 1


def test_a_missing_manifest_is_a_gap_and_not_damage(repository: Repository) -> None:
    source = filled(repository)
    repository.backend.delete(source.segments[1].head.key)
    found = catalog.read_catalog(repository)
    assert found.damaged == () and len(chain.runs(found.histories[0])[1]) == 1


def test_a_damaged_newest_manifest_still_says_where_the_fence_stands(repository: Repository) -> None:
    source = filled(repository)
    hit = source.sets[-1].head.key
    repository.backend.put(hit, [flip(repository.backend.read(hit))])
    (history,) = catalog.read_catalog(repository).histories
    assert history.sets == tuple(source.sets[:-1])
    assert catalog.next_place(history, "sets")[0] == 4


@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_timeline_hides_only_itself(repository: Repository, gone: bool) -> None:
    old = filled(repository)
    new = old.restored(2)
    new.back_up()
    publish(repository, new)
    key = layout.timeline("0001")
    data = repository.backend.read(key)
    if gone:
        repository.backend.delete(key)
    else:
        repository.backend.put(key, [flip(data)])
    found = catalog.read_catalog(repository)
    assert [one.key for one in found.damaged] == [key]
    assert [history.sets for history in found.histories] == [tuple(new.sets)]
    with pytest.raises(errors.IntegrityError, match="timeline 0001"):
        catalog.read_history(repository, "0001")


def test_an_unknown_feature_is_refused_and_not_skipped(repository: Repository) -> None:
    source = filled(repository)
    hit = source.segments[1]
    newer = dataclasses.replace(hit, head=dataclasses.replace(hit.head, requires=("compacted",)))
    repository.backend.put(hit.head.key, [objects.assemble(newer, repository.need_signing_key())])
    with pytest.raises(errors.RepositoryError, match="compacted"):
        catalog.read_catalog(repository)


def test_an_anchor_releases_what_lies_below_it(repository: Repository) -> None:
    source = filled(repository)
    for seq, first in ((1, 2), (2, 3)):
        place = catalog.next_place(catalog.read_history(repository, "0001"), "anchors")
        assert place[0] == seq
        head = repository.head("anchor", key=place[1], created_at=source.now, timeline="0001", seq=seq)
        repository.create(m.Anchor(head, first, source.segments[first - 1].link_before))
    (history,) = catalog.read_catalog(repository).histories
    assert history.anchor is not None and history.anchor.first_seq == 3
    assert history.segments == tuple(source.segments[2:])
    assert chain.runs(history) == ((tuple(source.segments[2:]),), ())
    repository.backend.delete(source.segments[0].head.key)  # what is released may be gone or not
    assert catalog.read_catalog(repository).histories == (history,)


def test_a_tombstone_releases_a_set(repository: Repository) -> None:
    source = filled(repository)
    seq, key = catalog.next_place(catalog.read_history(repository, "0001"), "tombstones")
    head = repository.head("tombstone", key=key, created_at=source.now, timeline="0001", seq=seq)
    buried = m.Tombstone(head, 2, ("data/x",), "released by retention")
    repository.create(buried)
    for _ in range(2):  # with the set's manifest still there, and without
        (history,) = catalog.read_catalog(repository).histories
        assert [one.head.seq for one in history.sets] == [1, 3]
        assert history.tombstones == (buried,)
        assert catalog.next_place(history, "sets")[0] == 4
        repository.backend.delete(source.sets[1].head.key)


# -- data keys


def test_any_recipient_opens_a_data_key(repository: Repository) -> None:
    people = [encrypt.Identity.generate() for _ in range(3)]
    sealing = keys.new_data_key(repository, [one.recipient for one in people])
    assert [info.key for info in repository.backend.list("keys/")] == [f"keys/{sealing.key_id}/0000000001.age"]
    opened = [str(keys.open_data_key(repository, sealing, (one,)).recipient) for one in people]
    assert opened == [sealing.recipient] * 3
    with pytest.raises(errors.KeyProblem, match="no identity given opens") as refused:
        keys.open_data_key(repository, sealing, (encrypt.Identity.generate(),))
    assert refused.value.hint
    with pytest.raises(errors.KeyProblem, match="no recipient"):
        keys.new_data_key(repository, ())


def rewrap(repository: Repository, sealing: m.Sealing, number: int, content: bytes, person: encrypt.Identity) -> None:
    encryptor = encrypt.Encryptor((person.recipient,))
    sealed = encryptor.encrypt(content) + encryptor.flush()
    repository.backend.put_if_absent(layout.key_object(sealing.key_id, number), sealed)


def test_the_newest_rewrap_comes_first_and_an_older_one_still_opens(repository: Repository) -> None:
    old, new = encrypt.Identity.generate(), encrypt.Identity.generate()
    sealing = keys.new_data_key(repository, (old.recipient,))
    opened = keys.open_data_key(repository, sealing, (old,))
    rewrap(repository, sealing, 2, opened.reveal().encode() + b"\n", new)
    for person in (old, new):
        assert keys.open_data_key(repository, sealing, (person,)).reveal() == opened.reveal()
    repository.backend.put(layout.key_object(sealing.key_id, 1), [b"no age file"])
    assert keys.open_data_key(repository, sealing, (new,)).reveal() == opened.reveal()
    rewrap(repository, sealing, 10, b"nothing of the kind\n", new)
    assert keys.open_data_key(repository, sealing, (new,)).reveal() == opened.reveal()  # a bad rewrap does not hide a good one


@pytest.mark.parametrize(("content", "reason"), [
    pytest.param(encrypt.Identity.generate().reveal().encode(), "holds another key", id="another"),
    pytest.param(b"nothing of the kind\n", "holds no data key", id="none"),
    (b"\xff\xfe", "holds no data key"), (b"", "holds no data key"),
])
def test_a_replaced_key_object_is_found_out(repository: Repository, content: bytes, reason: str) -> None:
    person = encrypt.Identity.generate()
    sealing = keys.new_data_key(repository, (person.recipient,))
    repository.backend.delete(layout.key_object(sealing.key_id, 1))
    rewrap(repository, sealing, 1, content, person)
    with pytest.raises(errors.IntegrityError, match=reason):
        keys.open_data_key(repository, sealing, (person,))


def test_a_damaged_or_missing_key_object(repository: Repository) -> None:
    person = encrypt.Identity.generate()
    sealing = keys.new_data_key(repository, (person.recipient,))
    key = layout.key_object(sealing.key_id, 1)
    data = repository.backend.read(key)
    repository.backend.put(key, [data[:-1] + bytes([data[-1] ^ 1])])
    with pytest.raises(errors.IntegrityError, match="is damaged"):
        keys.open_data_key(repository, sealing, (person,))
    repository.backend.delete(key)
    with pytest.raises(errors.IntegrityError, match="missing"):
        keys.open_data_key(repository, sealing, (person,))


# -- journals


def written(repository: Repository, *events: str) -> journal.Journal:
    made = journal.new_journal(repository, CREATED)
    for event in events:
        made.write(event, {"set": "0001-1", "n": len(made.entries)})
    return made


@pytest.mark.parametrize("signed", [True, False])
def test_a_journal_comes_back_and_says_whether_it_is_signed(repository: Repository, signed: bool) -> None:
    writer = repository if signed else dataclasses.replace(repository, signing_key=None)
    made = written(writer, "planned", "step", "step")
    found = journal.open_journal(writer, made.run)
    assert found.entries == made.entries and [entry.signed for entry in found.entries] == [signed] * 3
    assert journal.list_runs(repository) == [made.run]
    last = found.last("step")
    assert last is not None and last.fields == {"set": "0001-1", "n": "2"}
    assert found.last("step", n="1") == found.entries[1] and found.last("done") is None
    found.write("done")
    assert [entry.event for entry in journal.open_journal(repository, made.run).entries] == ["planned", "step", "step", "done"]


def test_two_writers_of_one_journal(repository: Repository) -> None:
    made = written(repository, "planned")
    other = journal.open_journal(repository, made.run)
    made.write("step")
    with pytest.raises(errors.LeaseHeld, match=made.run):
        other.write("step")
    assert len(other.entries) == 1


def test_a_journal_with_a_gap_or_a_foreign_entry_is_refused(repository: Repository) -> None:
    made = written(repository, "planned", "step", "step")
    second = layout.recovery_entry(made.run, 2)
    data = repository.backend.read(second)
    third = repository.backend.read(layout.recovery_entry(made.run, 3))
    elsewhere = dataclasses.replace(made.entries[1].record.head, key=layout.recovery_entry("20260101T000000Z-abcdef", 2))
    moved = _line(dataclasses.replace(made.entries[1].record, head=elsewhere))
    for replaced in (flip(data), third, moved, b"{}\n", b""):
        repository.backend.put(second, [replaced])
        with pytest.raises(errors.IntegrityError):
            journal.open_journal(repository, made.run)
    repository.backend.delete(second)
    with pytest.raises(errors.IntegrityError, match="missing entries"):
        journal.open_journal(repository, made.run)
    with pytest.raises(errors.UsageError, match="no recovery"):
        journal.open_journal(repository, "20260101T000000Z-abcdef")


def _line(value: Any) -> bytes:
    return canonical.dumps(codec.encode(value)) + b"\n"
