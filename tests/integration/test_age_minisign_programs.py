"""The public programs `age`, `age-keygen` and `minisign` read what we write, and we read what they write."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import shutil
import subprocess
import termios
from pathlib import Path

import pytest
import zstandard

from kpbackup import errors
from kpbackup.pipeline import age_texts, encrypt, sign, stream
from tests.servers import exercised

SIZES = (0, 1, 65535, 65536, 65537, 131072, 1 << 20)
MATERIAL = random.Random(11).randbytes(1 << 20)


def program(name: str, version_flag: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"these tests need the program {name}: apt-get install {name}")
    exercised.record(name, run(path, version_flag).decode().split()[-1])
    return path


def run(*command: str | Path, given: bytes = b"", check: bool = True) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, timeout=300, check=False)
    if check:
        assert done.returncode == 0, done.stderr.decode()
    elif done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "", stderr=done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def age() -> str:
    return program("age", "--version")


@pytest.fixture(scope="module")
def minisign() -> str:
    return program("minisign", "-v")


def our_encrypt(data: bytes, *recipients: encrypt.AnyRecipient) -> bytes:
    encryptor = encrypt.Encryptor(recipients)
    return encryptor.encrypt(data) + encryptor.flush()


def our_decrypt(data: bytes, identity: encrypt.AnyIdentity) -> bytes:
    decryptor = encrypt.Decryptor([identity])
    return decryptor.decrypt(data) + decryptor.finish()


def identity_file(folder: Path, identity: encrypt.Identity) -> Path:
    path = folder / "identity.txt"
    path.write_text(identity.reveal() + "\n")
    return path


@pytest.mark.parametrize("size", SIZES)
def test_age_reads_ours(age: str, tmp_path: Path, size: int) -> None:
    identity = encrypt.Identity.generate()
    other = encrypt.Identity.generate().recipient
    file = our_encrypt(MATERIAL[:size], other, identity.recipient)
    assert run(age, "-d", "-i", identity_file(tmp_path, identity), given=file) == MATERIAL[:size]


@pytest.mark.parametrize("size", SIZES)
def test_we_read_ages(age: str, size: int) -> None:
    identity, other = encrypt.Identity.generate(), encrypt.Identity.generate()
    file = run(age, "-r", str(other.recipient), "-r", str(identity.recipient), given=MATERIAL[:size])
    assert our_decrypt(file, identity) == MATERIAL[:size]
    assert our_decrypt(file, other) == MATERIAL[:size]
    with pytest.raises(errors.KeyProblem):
        our_decrypt(file, encrypt.Identity.generate())


def test_keys_are_those_of_age_keygen(age: str) -> None:
    text = run("age-keygen").decode()
    identity = age_texts.parse_identity(text)
    assert identity.reveal() in text
    assert f"# public key: {identity.recipient}\n" in text
    assert age_texts.parse_recipient(str(identity.recipient)) == identity.recipient
    ours = encrypt.Identity.generate()
    assert run("age-keygen", "-y", given=ours.reveal().encode()).decode().strip() == str(ours.recipient)


def test_age_refuses_ours_with_a_wrong_identity_or_a_changed_byte(age: str, tmp_path: Path) -> None:
    identity = encrypt.Identity.generate()
    file = bytearray(our_encrypt(MATERIAL, identity.recipient))
    with pytest.raises(subprocess.CalledProcessError):
        run(age, "-d", "-i", identity_file(tmp_path, encrypt.Identity.generate()), given=bytes(file), check=False)
    file[-1] ^= 1
    with pytest.raises(subprocess.CalledProcessError):
        run(age, "-d", "-i", identity_file(tmp_path, identity), given=bytes(file), check=False)


def test_armored_files_are_refused_by_name(age: str) -> None:
    identity = encrypt.Identity.generate()
    with pytest.raises(errors.IntegrityError, match="armored"):
        our_decrypt(run(age, "-a", "-r", str(identity.recipient), given=b"content"), identity)


def test_age_and_zstd_open_a_sealed_object(age: str, tmp_path: Path) -> None:
    identity = encrypt.Identity.generate()
    sealed = b"".join(stream.seal([MATERIAL, b"text " * 100_000], [identity.recipient]))
    frame = run(age, "-d", "-i", identity_file(tmp_path, identity), given=sealed)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(frame) == MATERIAL + b"text " * 100_000
    zstd = shutil.which("zstd")
    if zstd is not None:
        assert run(zstd, "-dc", given=frame) == MATERIAL + b"text " * 100_000


def at_terminal(command: list[str], answers: list[tuple[bytes, str]]) -> None:
    """Runs a program on a terminal of its own and answers its prompts, as `age` reads passphrases from nothing else."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    try:
        for prompt, answer in answers:
            while prompt not in shown:
                shown += os.read(ours, 1024)
            shown = shown.split(prompt, 1)[1]
            os.write(ours, answer.encode() + b"\n")
        assert process.wait(timeout=180) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_passphrases_work_with_age_both_ways(age: str, tmp_path: Path) -> None:
    plain, theirs, ours, back = (tmp_path / name for name in ("plain", "theirs.age", "ours.age", "back"))
    plain.write_bytes(MATERIAL[:100_000])
    at_terminal(
        [age, "-p", "-o", str(theirs), str(plain)],
        [(b"Enter passphrase", "correct horse"), (b"Confirm passphrase", "correct horse")],
    )
    assert our_decrypt(theirs.read_bytes(), encrypt.PassphraseIdentity("correct horse")) == MATERIAL[:100_000]
    ours.write_bytes(our_encrypt(MATERIAL[:100_000], encrypt.PassphraseRecipient("correct horse", work_factor=12)))
    at_terminal([age, "-d", "-o", str(back), str(ours)], [(b"Enter passphrase", "correct horse")])
    assert back.read_bytes() == MATERIAL[:100_000]


def write_ours(folder: Path, key: sign.SigningKey, data: bytes, comment: str) -> Path:
    document = folder / "document"
    document.write_bytes(data)
    (folder / "document.minisig").write_text(sign.sign(data, key, trusted_comment=comment))
    return document


@pytest.mark.parametrize("data", [b"", b"{}", MATERIAL])
def test_minisign_accepts_our_signature(minisign: str, tmp_path: Path, data: bytes) -> None:
    key = sign.SigningKey.generate()
    document = write_ours(tmp_path, key, data, "kpbackup set 2026-05-01 é")
    shown = run(minisign, "-V", "-H", "-Q", "-P", str(key.public_key), "-m", document)
    assert shown.decode().strip() == "kpbackup set 2026-05-01 é"
    (tmp_path / "key.pub").write_text(f"untrusted comment: ours\n{key.public_key}\n")
    assert b"verified" in run(minisign, "-V", "-p", tmp_path / "key.pub", "-m", document)


def test_minisign_refuses_a_changed_document_or_comment_of_ours(minisign: str, tmp_path: Path) -> None:
    key = sign.SigningKey.generate()
    document = write_ours(tmp_path, key, b"data", "seq 5")
    document.write_bytes(b"Data")
    with pytest.raises(subprocess.CalledProcessError):
        run(minisign, "-V", "-P", str(key.public_key), "-m", document, check=False)
    document.write_bytes(b"data")
    signature = tmp_path / "document.minisig"
    signature.write_text(signature.read_text().replace("seq 5", "seq 6"))
    with pytest.raises(subprocess.CalledProcessError):
        run(minisign, "-V", "-P", str(key.public_key), "-m", document, check=False)


def test_minisign_signs_with_our_key(minisign: str, tmp_path: Path) -> None:
    key = sign.SigningKey.generate()
    (tmp_path / "our.key").write_text(key.reveal())
    document = tmp_path / "document"
    document.write_bytes(MATERIAL)
    run(minisign, "-S", "-W", "-s", tmp_path / "our.key", "-t", "by minisign", "-m", document)
    assert sign.verify(MATERIAL, (tmp_path / "document.minisig").read_text(), [key.public_key]) == "by minisign"
    run(minisign, "-R", "-s", tmp_path / "our.key", "-p", tmp_path / "again.pub")
    assert sign.PublicKey.parse((tmp_path / "again.pub").read_text()) == key.public_key


@pytest.mark.parametrize("legacy", [(), ("-l",)], ids=["prehashed", "legacy"])
def test_we_accept_minisigns_signature_and_key(minisign: str, tmp_path: Path, legacy: tuple[str, ...]) -> None:
    secret, public, document = tmp_path / "m.key", tmp_path / "m.pub", tmp_path / "document"
    run(minisign, "-G", "-W", "-s", secret, "-p", public)
    document.write_bytes(b"some data")
    run(minisign, "-S", *legacy, "-W", "-s", secret, "-t", "hello", "-m", document)
    text = (tmp_path / "document.minisig").read_text()
    trusted = sign.PublicKey.parse(public.read_text())
    assert trusted.key_id.lstrip("0") in public.read_text()  # minisign leaves leading zeros out
    assert sign.verify(b"some data", text, [trusted]) == "hello"
    with pytest.raises(errors.IntegrityError):
        sign.verify(b"some dat", text, [trusted])
    with pytest.raises(errors.IntegrityError):
        sign.verify(b"some data", text.replace("hello", "hullo"), [trusted])
    key = sign.SigningKey.parse(secret.read_text())
    assert key.public_key == trusted


@pytest.mark.slow
def test_a_minisign_key_with_password(minisign: str, tmp_path: Path) -> None:
    secret, public = tmp_path / "m.key", tmp_path / "m.pub"
    run(minisign, "-G", "-s", secret, "-p", public, given=b"open sesame\nopen sesame\n")
    key = sign.SigningKey.parse(secret.read_text(), "open sesame")
    assert key.public_key == sign.PublicKey.parse(public.read_text())
    with pytest.raises(errors.KeyProblem, match="password and none is given"):
        sign.SigningKey.parse(secret.read_text())
    with pytest.raises(errors.KeyProblem, match="password is wrong"):
        sign.SigningKey.parse(secret.read_text(), "open barley")
