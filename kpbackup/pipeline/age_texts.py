"""Reads the texts of age keys: `age1...`, `AGE-SECRET-KEY-1...`, and the hybrid (post-quantum) ones. Plugin keys are refused.

The hybrid kind is loaded when such a key is met and not before: its library is not cheap to load. No error shows a key.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.pipeline import bech32
from kpbackup.pipeline.age_keys import FILE_KEY_BYTES, KEY_BYTES, Identity, Recipient


def parse_recipient(text: str) -> Recipient:
    """The recipient written as `age1...`, of either kind; raises KeyProblem."""
    word = text.strip()
    if word.lower().startswith("age1pq1"):
        from kpbackup.pipeline import age_hybrid

        return age_hybrid.parse_recipient(word)
    try:
        prefix, public = bech32.decode(word)
    except ValueError as exc:
        raise errors.KeyProblem(f"cannot read an age recipient: {exc}", hint="a recipient looks like age1...") from exc
    if prefix != "age" and prefix.lower().startswith("age1"):
        raise _unsupported("recipient", "a plugin key")
    if prefix != "age" or len(public) != KEY_BYTES:
        raise errors.KeyProblem("cannot read an age recipient: it is no X25519 key", hint="a recipient looks like age1...")
    recipient = Recipient(public)
    recipient.wrap(bytes(FILE_KEY_BYTES))  # finds a low-order point now, not in the middle of a backup
    return recipient


def parse_identity(text: str) -> Identity:
    """The one identity in `text`: bare `AGE-SECRET-KEY-1...` or a file of `age-keygen` (`#` comments). Raises KeyProblem."""
    words = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(words) != 1:
        raise errors.KeyProblem(f"cannot read an age identity: {len(words)} keys found where one is expected")
    if words[0].upper().startswith("AGE-SECRET-KEY-PQ-1"):
        from kpbackup.pipeline import age_hybrid

        return age_hybrid.parse_identity(words[0])
    if words[0].upper().startswith("AGE-PLUGIN-"):
        raise _unsupported("identity", "a plugin key")
    try:
        prefix, secret = bech32.decode(words[0])
    except ValueError as exc:
        raise errors.KeyProblem(f"cannot read an age identity: {exc}", hint="it looks like AGE-SECRET-KEY-1...") from exc
    if prefix != "AGE-SECRET-KEY-" or len(secret) != KEY_BYTES:
        raise errors.KeyProblem("cannot read an age identity: it is no X25519 key", hint="it looks like AGE-SECRET-KEY-1...")
    return Identity(secret)


def _unsupported(what: str, kind: str) -> errors.KeyProblem:
    return errors.KeyProblem(
        f"cannot use an age {what}: it is {kind}, which kpbackup does not support",
        hint="use a key pair as made by `age-keygen` or `age-keygen -pq`",
    )
