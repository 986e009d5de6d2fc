"""The error of one object says how to bring back all others."""

from __future__ import annotations

import pytest

from kpbackup import errors
from kpbackup.model.inventory import Definition
from kpbackup.recovery import way_out

BEFORE = "everything else comes back in a new restore with --exclude "


@pytest.mark.parametrize("kind", [errors.DatabaseError, errors.RestoreMismatch, errors.ServerUnfit])
def test_errors_of_an_object_name_it_once(kind: type[errors.KpbackupError]) -> None:
    with pytest.raises(kind) as caught, way_out.named("other", "x"), way_out.named("shop", "odd one"):
        raise kind("no", hint="look")
    assert caught.value.hint == f"look; {BEFORE}'shop.odd one'"


def test_errors_of_everything_are_not_one_objects() -> None:
    with pytest.raises(errors.ServerUnreachable) as caught, way_out.named("shop", "t"):
        raise errors.ServerUnreachable("gone")
    assert caught.value.hint == ""


def test_differences_lead_to_the_object_by_its_name_on_the_source() -> None:
    objects = [Definition(kind, "new", name, ()) for kind, name in (("table", "t"), ("table", "ta"), ("event", "e"))]
    sources = {"new": "shop"}
    assert way_out.of_differences(["table new.ta differs"], objects, sources) == f"{BEFORE}shop.ta"
    assert way_out.of_differences(["AUTO_INCREMENT of table new.t differs"], objects, {}) == f"{BEFORE}new.t"
    assert way_out.of_differences(["event new.e is missing on the target"], objects, sources) == f"{BEFORE}shop"
    assert way_out.of_differences(["triggers fire in another order"], objects, sources) == ""
