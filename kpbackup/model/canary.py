"""Canaries of repository format 1: a question sealed to one recipient, and the answer of whoever opened it."""

from __future__ import annotations

from dataclasses import dataclass

from kpbackup.model.manifest import Head, Payload


@dataclass(frozen=True)
class Canary:
    """A question sealed to one recipient alone; who opens it can give the answer whose hash is here."""

    head: Head
    recipient: str
    answer_sha256: str
    payload: Payload


@dataclass(frozen=True)
class CanaryProof:
    """The answer, left unsigned by whoever opened the canary: it proves itself."""

    answer: str
