"""Frozen manifests of format 1: written as before, read as before, in the documentation as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.pipeline.sign import PublicKey, SigningKey
from kpbackup.repository import layout, objects
from tests.vectors import format_samples

FROZEN = Path(__file__).parent / "format"
ROOT = Path(__file__).parents[2]
SAMPLES = format_samples.samples()
KEYS = (PublicKey.parse((FROZEN / "signing.pub").read_text()),)


@pytest.mark.parametrize("name", SAMPLES)
def test_manifests_are_written_byte_for_byte_as_frozen(name: str) -> None:
    assert objects.assemble(SAMPLES[name], format_samples.signing_key()) == (FROZEN / name).read_bytes()


@pytest.mark.parametrize("name", SAMPLES)
def test_frozen_manifests_are_read_to_the_same_values(name: str) -> None:
    value = SAMPLES[name]
    found = objects.parse((FROZEN / name).read_bytes(), key=value.head.key, public_keys=KEYS)
    assert codec.decode(type(value), found.document, what=name) == value


@pytest.mark.parametrize("name", SAMPLES)
def test_a_manifest_is_refused_under_another_key(name: str) -> None:
    with pytest.raises(errors.IntegrityError, match="moved"):
        objects.parse((FROZEN / name).read_bytes(), key="timelines/0001/sets/2026-04/0000000009", public_keys=KEYS)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_flipped_byte_of_a_manifest_is_found(name: str) -> None:
    data = (FROZEN / name).read_bytes()
    first_line = data.index(b"\n")
    for place in range(first_line, len(data), 7):  # the untrusted comment before it is not covered, by design
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((errors.IntegrityError, errors.KeyProblem)):
            objects.parse(flipped, key=SAMPLES[name].head.key, public_keys=KEYS)


def test_an_unknown_feature_is_refused_by_name() -> None:
    value = SAMPLES["anchor"]
    newer = dataclasses.replace(value, head=dataclasses.replace(value.head, requires=("compacted",)))
    with pytest.raises(errors.RepositoryError, match="compacted"):
        objects.parse(objects.assemble(newer, format_samples.signing_key()), key=value.head.key, public_keys=KEYS)


def test_a_foreign_signature_is_refused() -> None:
    value = SAMPLES["anchor"]
    with pytest.raises(errors.KeyProblem):
        objects.parse(objects.assemble(value, SigningKey.generate()), key=value.head.key, public_keys=KEYS)


def test_the_month_of_a_key_is_the_predecessors() -> None:
    key = layout.log_entry("0001", "segments", month_of=format_samples.T0, seq=7)
    assert key == "timelines/0001/segments/2026-04/0000000007"
    assert layout.parse_log_entry(key) == ("0001", "segments", 7)


def test_the_example_in_the_documentation_is_the_frozen_segment() -> None:
    assert (FROZEN / "segment").read_text() in (ROOT / "docs" / "format.md").read_text()
