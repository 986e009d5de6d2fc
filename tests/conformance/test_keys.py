"""Rewrapping, canaries and sealed identities on real stores."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model.canary import CanaryProof
from kpbackup.pipeline import encrypt
from kpbackup.pipeline.age_hybrid import HybridIdentity
from kpbackup.repository import canary, keys, layout, rewrap, sealed_identity
from kpbackup.repository.binding import Repository
from kpbackup.storage import Backend
from tests.conformance.conftest import CREATED
from tests.cut_off import CutOffBackend

PASSPHRASE = "correct horse battery staple"


def key_objects(repository: Repository) -> list[str]:
    return [info.key for info in repository.backend.list(layout.KEYS)]


def everything(repository: Repository) -> dict[str, bytes]:
    return {info.key: repository.backend.read(info.key) for info in repository.backend.list("")}


# -- rewrap


def test_rewrap_writes_new_key_objects_and_nothing_else(repository: Repository) -> None:
    old, new = encrypt.Identity.generate(), encrypt.Identity.generate()
    sealings = [keys.new_data_key(repository, (old.recipient,)) for _ in range(3)]
    before = everything(repository)
    done = rewrap.rewrap(repository, (old, new), (new.recipient, old.recipient))
    assert (done.written, done.current, done.unopened) == (3, 0, ())
    after = everything(repository)
    assert {key: after[key] for key in before} == before
    assert {key for key in after if key not in before} == {layout.key_object(one.key_id, 2) for one in sealings}
    for sealing in sealings:
        assert str(keys.open_data_key(repository, sealing, (new,)).recipient) == sealing.recipient
    assert {one.recipients for one in rewrap.list_data_keys(repository)} == {2}
    again = rewrap.rewrap(repository, (new,), (old.recipient, new.recipient))  # the order does not matter
    assert (again.written, again.current) == (0, 3)
    assert everything(repository) == after


def test_an_interrupted_rewrap_goes_on_where_it_stopped(repository: Repository) -> None:
    old, new = encrypt.Identity.generate(), encrypt.Identity.generate()
    for _ in range(4):
        keys.new_data_key(repository, (old.recipient,))
    store = CutOffBackend(repository.backend, refuse=lambda number, key: "before" if number > 2 else "")
    with pytest.raises(errors.StorageError, match="cut off"):
        rewrap.rewrap(dataclasses.replace(repository, backend=store), (old,), (new.recipient,))
    done = rewrap.rewrap(repository, (old,), (new.recipient,))
    # what was rewrapped to the new key alone is opened by the older object beside it, and rewritten once more
    assert done.unopened == () and len(key_objects(repository)) >= 8
    assert all(keys.open_key_object(repository, one.newest, (new,)) for one in rewrap.list_data_keys(repository))


def test_rewrap_names_what_it_cannot_open_and_does_the_rest(repository: Repository) -> None:
    own, lost = encrypt.Identity.generate(), encrypt.Identity.generate()
    good, bad = keys.new_data_key(repository, (own.recipient,)), keys.new_data_key(repository, (lost.recipient,))
    done = rewrap.rewrap(repository, (own,), (own.recipient, encrypt.Identity.generate().recipient))
    assert done.written == 1 and [key_id for key_id, _ in done.unopened] == [bad.key_id]
    assert "no identity given opens" in done.unopened[0][1]
    assert layout.key_object(good.key_id, 2) in key_objects(repository)


def test_rewrap_refuses_recipients_that_do_not_mix_before_it_writes(repository: Repository) -> None:
    own = encrypt.Identity.generate()
    keys.new_data_key(repository, (own.recipient,))
    with pytest.raises(errors.KeyProblem, match="mixed"):
        rewrap.rewrap(repository, (own,), (own.recipient, HybridIdentity.generate().recipient))
    assert len(key_objects(repository)) == 1


def test_a_hybrid_recipient_gets_a_hybrid_data_key(repository: Repository) -> None:
    own = HybridIdentity.generate()
    sealing = keys.new_data_key(repository, (own.recipient,))
    assert sealing.recipient.startswith("age1pq1")
    assert isinstance(keys.open_data_key(repository, sealing, (own,)), HybridIdentity)


def test_a_key_object_under_a_foreign_id_is_found_out(repository: Repository) -> None:
    own = encrypt.Identity.generate()
    first, second = (keys.new_data_key(repository, (own.recipient,)) for _ in range(2))
    data = repository.backend.read(layout.key_object(second.key_id, 1))
    repository.backend.put(layout.key_object(first.key_id, 1), [data])
    with pytest.raises(errors.IntegrityError, match="holds another key"):
        keys.open_data_key(repository, first, (own,))


# -- canaries


def opened(repository: Repository, recipient: encrypt.Recipient) -> canary.CanaryState:
    return next(one for one in canary.read_states(repository) if one.recipient == str(recipient))


def test_a_canary_is_proven_by_its_identity_alone_and_without_a_signing_key(repository: Repository) -> None:
    people = [encrypt.Identity.generate() for _ in range(2)]
    recipients = [one.recipient for one in people]
    made = canary.renew(repository, recipients, now=CREATED)
    assert [one.recipient for one in made] == [str(one) for one in recipients]
    assert [one.proven_at for one in canary.read_states(repository)] == [None, None]
    reader = dataclasses.replace(repository, signing_key=None)
    canary.open_newest(reader, people[:1])
    assert opened(repository, recipients[0]).proven_at == CREATED
    assert opened(repository, recipients[1]).proven_at is None
    with pytest.raises(errors.KeyProblem, match="has no canary"):
        canary.open_newest(reader, (encrypt.Identity.generate(),))
    canary.open_newest(reader, people)  # once more is fine
    # a newer canary dates the next proof; until then the older one stands
    later = CREATED + timedelta(days=30)
    canary.renew(repository, recipients, now=later, older_than=timedelta(days=7))
    assert canary.renew(repository, recipients, now=later + timedelta(days=6), older_than=timedelta(days=7)) == []
    assert opened(repository, recipients[0]).proven_at == CREATED
    canary.open_newest(reader, people[:1])
    state = opened(repository, recipients[0])
    assert (state.first_at, state.newest_at, state.proven_at) == (CREATED, later, later)


def test_a_forged_proof_proves_nothing(repository: Repository) -> None:
    own = encrypt.Identity.generate()
    (made,) = canary.renew(repository, (own.recipient,), now=CREATED)
    forged = canonical.dumps(codec.encode(CanaryProof("0" * 64))) + b"\n"
    for content in (forged, b"", b"{}\n", b"\xff"):
        repository.backend.put(layout.canary_proof(made.head.key), [content])
        assert opened(repository, own.recipient).proven_at is None
    repository.backend.put(layout.canary_proof(layout.canary("no canary", 1)), [forged])
    assert len(canary.read_states(repository)) == 1


def test_a_canary_that_was_tampered_with(repository: Repository) -> None:
    own = encrypt.Identity.generate()
    (made,) = canary.renew(repository, (own.recipient,), now=CREATED)
    key = made.head.key
    data = repository.backend.read(key)
    repository.backend.put(key, [data[:-1] + bytes([data[-1] ^ 1])])
    with pytest.raises(errors.IntegrityError, match=f"canary {key}"):
        canary.open_newest(repository, (own,))
    # sealed to the right key, but with another answer than the one that was signed for
    encryptor = encrypt.Encryptor((own.recipient,))
    head = data[: -made.payload.bytes]
    repository.backend.put(key, [head + encryptor.encrypt(b"another\n") + encryptor.flush()])
    with pytest.raises(errors.IntegrityError, match="another answer"):
        canary.open_newest(repository, (own,))
    assert opened(repository, own.recipient).proven_at is None


# -- identities sealed with a passphrase


def test_a_sealed_identity_opens_with_its_passphrase_alone(store: Backend) -> None:
    identity = encrypt.Identity.generate()
    sealed = sealed_identity.seal(identity, PASSPHRASE)
    assert sealed_identity.is_sealed(sealed) and not sealed_identity.is_sealed(identity.reveal().encode())
    sealed_identity.store(store, sealed)
    sealed_identity.store(store, sealed)  # an interrupted init that is run again
    assert [info.key for info in store.list(layout.IDENTITIES)] == [layout.sealed_identity(1)]
    assert sealed_identity.open_stored(store, PASSPHRASE) == (identity,)
    with pytest.raises(errors.KeyProblem, match="passphrase is wrong") as refused:
        sealed_identity.open_stored(store, PASSPHRASE + "!")
    assert PASSPHRASE not in refused.value.message + refused.value.hint


def test_a_short_passphrase_and_an_empty_store_are_refused(store: Backend) -> None:
    with pytest.raises(errors.KeyProblem, match="has 5 characters"):
        sealed_identity.seal(encrypt.Identity.generate(), "short")
    with pytest.raises(errors.KeyProblem, match="holds no identity"):
        sealed_identity.open_stored(store, PASSPHRASE)


def test_canaries_that_prove_nothing_any_more_are_released(repository: Repository) -> None:
    identity = encrypt.Identity.generate()
    made = [canary.renew(repository, (identity.recipient,), now=CREATED + timedelta(days=day))[0] for day in range(5)]
    canary.open_newest(repository, (identity,))
    newest = canary.renew(repository, (identity.recipient,), now=CREATED + timedelta(days=5))[0]
    assert set(canary.outlived(repository, CREATED)) == set(), "all of them are young"
    gone = list(canary.outlived(repository, CREATED + timedelta(days=90)))
    assert gone == [one.head.key for one in made[:-1]], "not the one that was opened, nor the newest"
    repository.backend.delete_all(gone)
    (state,) = canary.read_states(repository)
    assert (state.newest_at, state.proven_at) == (newest.head.created_at, made[-1].head.created_at)
