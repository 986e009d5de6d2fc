"""Names and values for the journal, which lies in the plain part of the repository: only the identity opens them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from kpbackup.model import canonical
from kpbackup.pipeline import encrypt


def seal(value: object, identities: Sequence[encrypt.AnyIdentity]) -> str:
    """A text that `unseal` opens; '' for an empty value, and where no identity can be sealed to."""
    owners = [identity.recipient for identity in identities if isinstance(identity, encrypt.Identity)]
    if not value or not owners:
        return ""
    encryptor = encrypt.Encryptor([owner for owner in owners if type(owner) is type(owners[0])])  # kinds do not mix
    return base64.b64encode(encryptor.encrypt(canonical.dumps(value)) + encryptor.flush()).decode()


def unseal(text: str, identities: Sequence[encrypt.AnyIdentity]) -> Any:
    """What `seal` was given; None for ''."""
    if not text:
        return None
    decryptor = encrypt.Decryptor(identities)
    return json.loads(decryptor.decrypt(base64.b64decode(text)) + decryptor.finish())
