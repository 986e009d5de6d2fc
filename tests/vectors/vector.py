"""The frozen repository of format 1, laid out where a test may change it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpbackup.pipeline import age_texts, encrypt, sign
from kpbackup.repository import binding
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend

HOME = Path(__file__).parent / "format" / "repository-1"


@dataclass(frozen=True)
class Vector:
    """A copy of it in `directory`."""

    directory: Path

    @classmethod
    def thawed(cls, directory: Path) -> Vector:
        shutil.copytree(HOME / "repository", directory)
        return cls(directory)

    @property
    def public_keys(self) -> tuple[sign.PublicKey, ...]:
        return (sign.PublicKey.parse((HOME / "keys" / "signing.pub").read_text(encoding="utf-8").splitlines()[1]),)

    @property
    def signing_key(self) -> sign.SigningKey:
        return sign.SigningKey.parse((HOME / "keys" / "signing.key").read_text(encoding="utf-8"))

    @property
    def identities(self) -> tuple[encrypt.Identity, ...]:
        lines = (HOME / "keys" / "identity.txt").read_text(encoding="utf-8").splitlines()
        return tuple(age_texts.parse_identity(line) for line in lines if line.startswith("AGE-SECRET-KEY-"))

    @property
    def expected(self) -> Any:
        return json.loads((HOME / "expected.json").read_text(encoding="utf-8"))

    def repository(self) -> Repository:
        """Opened anew, for reading."""
        return binding.open_repository(open_backend(self.directory.as_uri()), public_keys=self.public_keys)

    def files(self, prefix: str = "") -> list[Path]:
        """Every object whose key begins so, in order of the keys."""
        found = (path for path in self.directory.rglob("*") if path.is_file())
        return sorted(path for path in found if self.key_of(path).startswith(prefix))

    def key_of(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()
