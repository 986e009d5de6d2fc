"""Objects judged by Kubernetes' own schemas (kubernetes-validate, strict: a misspelt field is an error). Tests only."""

from __future__ import annotations

import copy
from typing import Any

VERSION = "1.33"


def check(found: dict[str, Any]) -> str:
    """What is wrong with an object, '' when nothing is."""
    import kubernetes_validate  # type: ignore[import-untyped]
    from kubernetes_validate.utils import SchemaNotFoundError, ValidationError  # type: ignore[import-untyped]

    judged = copy.deepcopy(found)
    judged.pop("status", None)  # written by this server itself
    try:
        kubernetes_validate.validate(judged, VERSION, strict=True)
    except ValidationError as exc:
        return f"{exc.message} at {'.'.join(map(str, exc.path))}"
    except SchemaNotFoundError:
        return f"no schema for {found.get('apiVersion')} {found.get('kind')}"
    return ""

