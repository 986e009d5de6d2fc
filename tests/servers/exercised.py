"""Which servers this process has really started: the last word of a test run."""

from __future__ import annotations

_versions: dict[str, set[str]] = {}


def record(product: str, version: str) -> None:
    """Notes a server that answered, e.g. `record("MariaDB", "10.11.19")`."""
    _versions.setdefault(product, set()).add(version)


def line() -> str:
    """`servers exercised: MariaDB 10.11.19, SeaweedFS 4.48`, or `servers exercised: none`."""
    names = [f"{product} {version}" for product in sorted(_versions) for version in sorted(_versions[product])]
    return "servers exercised: " + (", ".join(names) or "none")
