"""Which servers this process and its workers have really started: the last word of a test run."""

from __future__ import annotations

_versions: dict[str, set[str]] = {}


def record(product: str, version: str) -> None:
    """Notes a server that answered, e.g. `record("MariaDB", "10.11.19")`."""
    _versions.setdefault(product, set()).add(version)


def everything() -> list[list[str]]:
    """(product, version) of all, as a worker hands them on."""
    return [[product, version] for product, versions in _versions.items() for version in sorted(versions)]


def line() -> str:
    """`servers exercised: MariaDB 10.11.19, SeaweedFS 4.48`, or `servers exercised: none`."""
    names = [f"{product} {version}" for product in sorted(_versions) for version in sorted(_versions[product])]
    return "servers exercised: " + (", ".join(names) or "none")
