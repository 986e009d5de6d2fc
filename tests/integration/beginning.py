"""Keys and an empty repository as `kpbackup init` makes them, by its own functions: most tests begin so, and each would start
a program for it. What the tests of `init` itself, of stores that are not folders and of passphrases do is left to the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kpbackup import config as configuration
from kpbackup.cli import init
from kpbackup.service import founding, opening


def begin(config: Path, keys: Path) -> dict[str, Any]:
    """What `kpbackup init --keys KEYS --json` answers, as far as tests ask; {} where the program is to be run."""
    settings = configuration.load(config, {})
    if not settings.need_repository().url.startswith("file://") or settings.encryption.passphrase_file:
        return {}
    backend = opening.backend(settings)
    flavour = founding.flavour(settings)
    founding.try_store(backend)
    made = init._keys(settings, keys)
    source = settings.need_source().label
    repository = founding.create(backend, signing_key=made.signing, source=source, flavour=flavour)
    return {
        "repository": repository.id, "recipient": made.recipients[0], "public_key": str(made.signing.public_key),
        "signing_key_file": str(made.signing_file), "identity_file": str(made.identity_file),
    }
