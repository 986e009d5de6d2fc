"""Signing keys that are believed up to a head and no further.

A stolen signing key can forge the future, never the past: what it signed before the theft is still good. A retired key is trusted
for the entries that a head file names, each log up to a number, and for nothing behind it; so a forged entry is refused like
one of a stranger. Times do not help here: whoever signs chooses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kpbackup import errors
from kpbackup.model.heads import Heads
from kpbackup.pipeline import sign
from kpbackup.repository import layout


@dataclass(frozen=True)
class RetiredKey(sign.PublicKey):
    """A public key and the head up to which it is trusted."""

    until: Heads = field(default_factory=lambda: Heads(""), compare=False)

    @classmethod
    def of(cls, key: sign.PublicKey, until: Heads) -> RetiredKey:
        return cls(key.identifier, key.public, until)


def refuse_after_retirement(signer: sign.PublicKey, *, key: str, repository: str) -> None:
    """Passes for keys in use, and for entries that were there when the signer was retired.

    Raises:
        KeyProblem: `key` came later, so it may be forged.
    """
    if not isinstance(signer, RetiredKey):
        return
    if signer.until.repository not in ("", repository):
        raise errors.KeyProblem(f"manifest {key}: the head of retired key {signer.key_id} is of another repository")
    place = layout.place(key)
    if place is not None and not signer.until.covers(*place):
        last = signer.until.logs.get(place[0], 0)
        raise errors.KeyProblem(
            f"manifest {key} was signed by retired key {signer.key_id}, which is trusted up to number {last} of {place[0]}",
            hint="if you wrote it yourself, retire the key with a newer head file; else it is forged",
        )
