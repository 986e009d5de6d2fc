"""Whatever the cut of the input, a round trip gives it back; whatever the change of the output, it is noticed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.pipeline import age_header, age_texts, bech32, compress, encrypt, sign, stream
from kpbackup.pipeline.age_hybrid import HybridIdentity

IDENTITY = encrypt.Identity.generate()
CHUNK = 65536
SEALED_CHUNK = CHUNK + 16
SIZES = (0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 5)
# Bytes that do not repeat and do not shrink.
MATERIAL = random.Random(7).randbytes(4 * CHUNK)

cuts = st.lists(st.integers(0, 4 * CHUNK), max_size=8)
sizes = st.one_of(st.sampled_from(SIZES), st.integers(0, 4 * CHUNK))


def split(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        yield data[start:stop]


def age_encrypt(
    data: bytes, places: Sequence[int] = (), recipients: Sequence[encrypt.AnyRecipient] = (IDENTITY.recipient,)
) -> bytes:
    encryptor = encrypt.Encryptor(recipients)
    return b"".join([encryptor.encrypt(piece) for piece in split(data, places)] + [encryptor.flush()])


def age_decrypt(data: bytes, places: Sequence[int] = (), identity: encrypt.AnyIdentity = IDENTITY) -> bytes:
    decryptor = encrypt.Decryptor([identity])
    return b"".join([decryptor.decrypt(piece) for piece in split(data, places)] + [decryptor.finish()])


def payload_start(file: bytes | bytearray) -> int:
    return file.index(b"\n", file.index(b"\n---") + 1) + 1 + 16


def unseal(data: bytes, places: Sequence[int] = ()) -> bytes:
    return b"".join(stream.unseal(split(data, places), [IDENTITY]))


def test_hybrid_keys_round_trip_and_are_read_back_from_their_texts() -> None:
    people = [HybridIdentity.generate() for _ in range(2)]
    file = age_encrypt(b"for both", recipients=[age_texts.parse_recipient(str(one.recipient)) for one in people])
    for one in people:
        again = age_texts.parse_identity(one.reveal())
        assert again == one and again.recipient == one.recipient and one.reveal() not in repr(one)
        assert age_decrypt(file, identity=again) == b"for both"
    with pytest.raises(errors.KeyProblem, match="none of 1 given"):
        age_decrypt(file, identity=HybridIdentity.generate())
    assert isinstance(people[0].recipient.new_identity(), HybridIdentity)
    assert type(IDENTITY.recipient.new_identity()) is encrypt.Identity


def test_hybrid_and_other_keys_are_not_mixed() -> None:
    with pytest.raises(errors.KeyProblem, match="mixed"):
        age_encrypt(b"", recipients=[IDENTITY.recipient, HybridIdentity.generate().recipient])


@pytest.mark.parametrize("text", ["age1pq1qqqq", str(HybridIdentity.generate().recipient)[:-1] + "b", "AGE1PQ1"])
def test_a_misspelt_hybrid_recipient_is_refused(text: str) -> None:
    with pytest.raises(errors.KeyProblem, match="hybrid"):
        age_texts.parse_recipient(text)


@given(sizes, cuts, cuts)
def test_encryption_round_trip(size: int, in_cuts: list[int], out_cuts: list[int]) -> None:
    file = age_encrypt(MATERIAL[:size], in_cuts)
    assert age_decrypt(file, out_cuts) == MATERIAL[:size]
    assert len(file) - payload_start(file) == size + 16 * max(1, -(-size // CHUNK))


@given(st.sampled_from((b"", MATERIAL[:200_000], bytes(3_000_000), b"row of text\n" * 50_000)), cuts, cuts, st.integers(1, 19))
@settings(max_examples=40, deadline=None)
def test_seal_round_trip(data: bytes, in_cuts: list[int], out_cuts: list[int], level: int) -> None:
    sealed = b"".join(stream.seal(split(data, in_cuts), [IDENTITY.recipient], level=level))
    assert unseal(sealed, out_cuts) == data


@given(st.data(), st.sampled_from(SIZES), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(data: st.DataObject, size: int, flip: int) -> None:
    file = bytearray(age_encrypt(MATERIAL[:size]))
    place = data.draw(st.one_of(st.integers(0, len(file) - 1), st.integers(0, min(len(file), 250) - 1)))
    file[place] ^= flip
    with pytest.raises((errors.IntegrityError, errors.KeyProblem)):
        age_decrypt(bytes(file))


def test_every_header_byte_counts() -> None:
    file = age_encrypt(b"content")
    for place in range(len(file)):
        changed = bytearray(file)
        changed[place] ^= 0x01
        with pytest.raises((errors.IntegrityError, errors.KeyProblem)):
            age_decrypt(bytes(changed))


@given(st.data(), st.sampled_from(SIZES), cuts)
def test_a_cut_is_noticed_and_only_a_beginning_is_released(data: st.DataObject, size: int, places: list[int]) -> None:
    file = age_encrypt(MATERIAL[:size])
    kept = data.draw(
        st.one_of(
            st.integers(0, len(file) - 1),
            st.sampled_from(range(payload_start(file), len(file), SEALED_CHUNK)),
        )
    )
    decryptor = encrypt.Decryptor([IDENTITY])
    released = b""
    with pytest.raises(errors.IntegrityError, match="cut off|extended|bad tag|is empty"):
        for piece in split(file[:kept], places):
            released += decryptor.decrypt(piece)
        released += decryptor.finish()
    assert MATERIAL.startswith(released)
    assert len(released) % CHUNK == 0


@given(st.sampled_from(SIZES), st.binary(min_size=1, max_size=40))
def test_trailing_bytes_are_noticed(size: int, extra: bytes) -> None:
    with pytest.raises(errors.IntegrityError):
        age_decrypt(age_encrypt(MATERIAL[:size]) + extra)


@given(st.permutations(range(4)).filter(lambda order: list(order) != [0, 1, 2, 3]))
def test_reordered_chunks_are_noticed(order: list[int]) -> None:
    file = age_encrypt(MATERIAL)
    start = payload_start(file)
    chunks = [file[place : place + SEALED_CHUNK] for place in range(start, len(file), SEALED_CHUNK)]
    with pytest.raises(errors.IntegrityError):
        age_decrypt(file[:start] + b"".join(chunks[place] for place in order))


@pytest.mark.parametrize("kept", [(0, 1, 3), (0, 1, 2), (3,), (0, 1, 2, 3, 3), (0, 0, 1, 2, 3)])
def test_dropped_and_doubled_chunks_are_noticed(kept: tuple[int, ...]) -> None:
    file = age_encrypt(MATERIAL)
    start = payload_start(file)
    chunks = [file[place : place + SEALED_CHUNK] for place in range(start, len(file), SEALED_CHUNK)]
    with pytest.raises(errors.IntegrityError):
        age_decrypt(file[:start] + b"".join(chunks[place] for place in kept))


def test_chunks_of_two_files_cannot_be_mixed() -> None:
    one, two = age_encrypt(MATERIAL), age_encrypt(MATERIAL)
    place = payload_start(one) + SEALED_CHUNK
    with pytest.raises(errors.IntegrityError):
        age_decrypt(one[:place] + two[place:])


def test_an_error_repeats_and_nothing_more_is_released() -> None:
    file = bytearray(age_encrypt(MATERIAL))
    file[payload_start(file) + SEALED_CHUNK + 5] ^= 1
    decryptor = encrypt.Decryptor([IDENTITY])
    with pytest.raises(errors.IntegrityError):
        decryptor.decrypt(bytes(file))
    with pytest.raises(errors.IntegrityError):
        decryptor.decrypt(b"more")
    with pytest.raises(errors.IntegrityError):
        decryptor.finish()


def test_each_of_several_recipients_opens_it_and_a_stranger_does_not() -> None:
    owners = [encrypt.Identity.generate() for _ in range(3)]
    file = age_encrypt(b"content", recipients=[owner.recipient for owner in owners])
    assert [age_decrypt(file, identity=owner) for owner in owners] == [b"content"] * 3
    with pytest.raises(errors.KeyProblem, match="none of 1 given identities"):
        age_decrypt(file, identity=encrypt.Identity.generate())


def test_passphrase_round_trip() -> None:
    file = age_encrypt(MATERIAL, recipients=[encrypt.PassphraseRecipient("correct horse", work_factor=4)])
    assert age_decrypt(file, identity=encrypt.PassphraseIdentity("correct horse")) == MATERIAL
    with pytest.raises(errors.KeyProblem, match="passphrase is wrong"):
        age_decrypt(file, identity=encrypt.PassphraseIdentity("battery staple"))
    with pytest.raises(errors.KeyProblem, match="asks for a passphrase"):
        age_decrypt(file)


def test_no_way_to_plaintext_or_to_mixed_recipients() -> None:
    with pytest.raises(errors.KeyProblem, match="no recipient"):
        encrypt.Encryptor([])
    with pytest.raises(errors.KeyProblem, match="only recipient"):
        encrypt.Encryptor([IDENTITY.recipient, encrypt.PassphraseRecipient("x", work_factor=1)])
    with pytest.raises(errors.KeyProblem, match="empty"):
        encrypt.PassphraseRecipient("")
    with pytest.raises(errors.UsageError, match="work factor 23"):
        encrypt.PassphraseRecipient("x", work_factor=23)
    with pytest.raises(errors.KeyProblem, match="low-order"):
        age_texts.parse_recipient(bech32.encode("age", bytes(32)))


def test_a_header_without_end_is_refused_before_it_fills_the_memory() -> None:
    decryptor = encrypt.Decryptor([IDENTITY])
    with pytest.raises(errors.IntegrityError, match="does not end within"):
        for _ in range(100):
            decryptor.decrypt(age_header.VERSION_LINE + b"-> grease\n" * 5000)


def test_an_empty_last_chunk_behind_full_ones_is_refused() -> None:
    file_key, nonce = bytes(range(16)), bytes(16)
    cipher = ChaCha20Poly1305(age_header.hkdf(file_key, salt=nonce, info=b"payload"))
    full = cipher.encrypt(bytes(12), MATERIAL[:CHUNK], None)
    empty = cipher.encrypt((1).to_bytes(11, "big") + b"\x01", b"", None)
    with pytest.raises(errors.IntegrityError, match="empty but not the only one"):
        age_decrypt(age_header.build([IDENTITY.recipient.wrap(file_key)], file_key) + nonce + full + empty)


@pytest.mark.parametrize("text", ["0", "04", "+4", "-4", "4 ", "\u0664", "4_", "", "x"])
def test_a_work_factor_has_one_spelling(text: str) -> None:
    stanza = encrypt.PassphraseRecipient("pass", work_factor=4).wrap(bytes(16))
    misspelled = age_header.Stanza((*stanza.arguments[:2], text), stanza.body)
    assert encrypt.PassphraseIdentity("pass").unwrap([stanza]) == bytes(16)
    with pytest.raises(errors.IntegrityError, match="plain decimal number"):
        encrypt.PassphraseIdentity("pass").unwrap([misspelled])


def test_secrets_are_not_shown() -> None:
    secret = IDENTITY.reveal()
    key = sign.SigningKey.generate()
    assert "_secret" not in repr(IDENTITY)
    assert secret not in repr(IDENTITY) + str(IDENTITY)
    assert "pass phrase" not in repr(encrypt.PassphraseRecipient("pass phrase")) + repr(encrypt.PassphraseIdentity("pass phrase"))
    assert "seed" not in repr(key)
    with pytest.raises(errors.KeyProblem) as caught:
        age_texts.parse_identity(secret[:-1] + ("Q" if secret[-1] != "Q" else "P"))
    assert secret[:-1] not in caught.value.message + caught.value.hint


@given(st.binary(max_size=70))
def test_bech32_round_trip(data: bytes) -> None:
    assert bech32.decode(bech32.encode("age", data)) == ("age", data)
    assert bech32.decode(bech32.encode("age", data).upper()) == ("AGE", data)


@given(st.binary(min_size=32, max_size=32), st.data())
def test_a_mistyped_recipient_is_refused(public: bytes, data: st.DataObject) -> None:
    text = bech32.encode("age", public)
    place = data.draw(st.integers(4, len(text) - 1))
    letter = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l").filter(lambda found: found != text[place]))
    with pytest.raises(errors.KeyProblem, match="checksum"):
        age_texts.parse_recipient(text[:place] + letter + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "age1", "AGE1QQQ", "age1pq1" + "q" * 40, "AGE-SECRET-KEY-1QQ", "1qqqqqq", "agé1qqqqqqqqqq"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(errors.KeyProblem):
        age_texts.parse_recipient(text)
    with pytest.raises(errors.KeyProblem):
        age_texts.parse_identity(text)
    with pytest.raises(errors.KeyProblem):
        sign.PublicKey.parse(text)
    with pytest.raises(errors.KeyProblem):
        sign.SigningKey.parse(text)


def decompress(data: bytes, places: Sequence[int] = ()) -> list[bytes]:
    decompressor = compress.Decompressor()
    pieces = [piece for part in split(data, places) for piece in decompressor.decompress(part)]
    decompressor.finish()
    return pieces


FRAMES = st.sampled_from(
    [
        zstandard.ZstdCompressor(level=3, write_content_size=size, write_checksum=checksum).compress(content)
        for content in (b"", b"a", MATERIAL[:300], bytes(400_000), MATERIAL, b"text line\n" * 30_000)
        for size in (False, True)
        for checksum in (False, True)
    ]
    + [b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello", b"\x5f\x2a\x4d\x18\x00\x00\x00\x00"]
)


@given(st.lists(FRAMES, max_size=4), cuts)
def test_any_frames_one_after_the_other_are_read_as_one_stream(frames: list[bytes], places: list[int]) -> None:
    data = b"".join(frames)
    wanted = b"".join(
        zstandard.ZstdDecompressor().decompressobj().decompress(frame) for frame in frames if frame[1:4] != b"\x2a\x4d\x18"
    )
    assert b"".join(decompress(data, places)) == wanted


@given(FRAMES, st.data())
def test_a_cut_frame_is_noticed(frame: bytes, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(frame) - 1))
    with pytest.raises(errors.IntegrityError, match="cut off"):
        decompress(frame[:kept])


@given(st.data(), st.integers(1, 255))
def test_a_changed_frame_is_noticed(data: st.DataObject, flip: int) -> None:
    content = b"text line %d\n" * 3000
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(content))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= flip
    try:
        assert b"".join(decompress(bytes(frame))) == content  # unused bits of the header may change without harm
    except errors.IntegrityError:
        return
    assert place in range(4, 16)


def test_a_tiny_frame_that_unpacks_to_much_comes_in_small_pieces() -> None:
    frame = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(bytes(200 << 20))
    assert len(frame) < 64 << 10
    total = 0
    decompressor = compress.Decompressor()
    for piece in decompressor.decompress(frame):
        assert 0 < len(piece) <= 1 << 20
        total += len(piece)
    decompressor.finish()
    assert total == 200 << 20


@given(st.binary(max_size=300), st.text("abc é\t", max_size=30), st.data())
def test_signature_round_trip_and_any_changed_bit(data: bytes, comment: str, draw: st.DataObject) -> None:
    key = sign.SigningKey.generate()
    text = sign.sign(data, key, trusted_comment=comment)
    assert text.count("\n") == 4
    assert text.endswith("\n")
    assert sign.verify(data, text, [sign.SigningKey.generate().public_key, key.public_key]) == comment
    with pytest.raises(errors.IntegrityError):
        sign.verify(data + b"x", text, [key.public_key])
    protected = text.index("\n") + 1
    place = draw.draw(st.integers(protected, len(text) - 2))
    letter = draw.draw(st.sampled_from("ABCab01+/").filter(lambda found: found != text[place]))
    with pytest.raises((errors.IntegrityError, errors.KeyProblem)):
        sign.verify(data, text[:place] + letter + text[place + 1 :], [key.public_key])


def test_signature_of_an_unknown_key_is_named() -> None:
    key = sign.SigningKey.generate()
    text = sign.sign(b"data", key, trusted_comment="set 1")
    with pytest.raises(errors.KeyProblem, match=key.public_key.key_id):
        sign.verify(b"data", text, [sign.SigningKey.generate().public_key])
    impostor = sign.PublicKey(key.identifier, sign.SigningKey.generate().public_key.public)
    with pytest.raises(errors.IntegrityError):
        sign.verify(b"data", text, [impostor])
    with pytest.raises(errors.UsageError):
        sign.sign(b"data", key, trusted_comment="two\nlines")


def test_signing_keys_keep_their_texts() -> None:
    key = sign.SigningKey.generate()
    assert sign.SigningKey.parse(key.reveal()) == key
    assert sign.PublicKey.parse(str(key.public_key)) == key.public_key
    assert sign.PublicKey.parse(f"untrusted comment: x\n{key.public_key}\n") == key.public_key
    assert str(key.public_key).startswith("RW")


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_a_tally_passes_all_on_and_counts_it(chunks: list[bytes]) -> None:
    tally = stream.Tally(chunks)
    assert list(tally) == chunks
    assert tally.size_bytes == len(b"".join(chunks))
    assert tally.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
