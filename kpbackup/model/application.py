"""What is kept of the application beside the database: the content of a sealed bundle.

Secrets, names and values are in here and nowhere in plain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kpbackup.model import canonical
from kpbackup.model.inventory import Inventory


@dataclass(frozen=True)
class Bundle:
    """An application as it was at `taken_at`.

    `record` is Helm's own record of the release as it lies in the cluster, None where Helm is not used. `objects` are
    what the cluster held of it, without what servers write into them, in the order in which they are made.
    `images` names what ran: `Deployment/web/container` -> image. `warnings` tell what was referred to and is not there.
    """

    taken_at: datetime
    cluster: str
    cluster_version: str
    namespace: str
    release: str
    chart: str
    record: dict[str, Any] | None
    objects: tuple[dict[str, Any], ...]
    images: dict[str, str] = field(default_factory=dict)
    schema_fingerprint: str = ""
    warnings: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> tuple[dict[str, Any], ...]:
        return tuple(one for one in self.objects if one.get("kind") == kind)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((one for one in self.of_kind(kind) if one["metadata"]["name"] == name), None)


def fingerprint(inventory: Inventory) -> str:
    """What the schema looks like, in one hash: tables with their columns, types and keys; rows and counters do not matter."""
    shape = [
        [table.schema, table.name, [[c.name, c.column_type, c.charset or ""] for c in table.columns], list(table.key)]
        for table in inventory.tables
    ]
    return hashlib.sha256(canonical.dumps(sorted(shape))).hexdigest()
