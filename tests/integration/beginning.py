"""Keys and an empty repository as `kpbackup init` makes them, without the start of a program: most tests begin so.

What the tests of `init` itself, of stores that are not folders and of passphrases do is left to the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kpbackup import config as configuration
from kpbackup.cli import init


def begin(config: Path, keys: Path) -> dict[str, Any]:
    """What `kpbackup init --keys KEYS --json` answers; {} where the program is to be run."""
    settings = configuration.load(config, {})
    if not settings.need_repository().url.startswith("file://") or settings.encryption.passphrase_file:
        return {}
    return init.document(*init.begin(settings, keys))
