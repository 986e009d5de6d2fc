"""Which urls name a store, and which are refused before anything is contacted."""

from __future__ import annotations

import pytest

from kpbackup import errors
from kpbackup.storage import open_backend

ENDPOINT = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:///backups/a%20b/%C3%A9", "file:///backups/a%20b/%C3%A9"),
        ("file:///with space", "file:///with%20space"),
        ("file://localhost/srv", "file:///srv"),
        ("s3://bucket-1.example/some/where/", "s3://bucket-1.example/some/where"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_a_good_url_names_its_store(url: str, name: str) -> None:
    assert open_backend(url).name == name


@pytest.mark.parametrize(
    "url",
    ["", "bucket", "/srv/backups", "file://srv/backups", "file:srv", "file:///", "http://bucket/x", "s3:///x", "s3://Bucket/x"]
    + [
        "s3://b",
        "s3://bucket/../x",
        "s3://bucket//x",
        "s3://bucket/x?y=1",
        "file:///a#b",
        "s3://bucket:99/x",
        "s3://[",
        "file:///a%00b",
    ],
)
def test_nonsense_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        open_backend(url)
    assert caught.value.hint


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://", "http://host:port", "https://host/?x"])
def test_a_nonsense_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(errors.SettingsError):
        open_backend("s3://bucket/x", endpoint_url=endpoint)


def test_a_directory_has_neither_endpoint_nor_region() -> None:
    for endpoint_url, region in ((ENDPOINT, None), (None, "eu-central-1")):
        with pytest.raises(errors.SettingsError, match="belong to s3"):
            open_backend("file:///srv", endpoint_url=endpoint_url, region=region)


@pytest.mark.parametrize(("url", "endpoint"), [("s3://KEY:hush@bucket/x", None), ("s3://bucket/x", "http://KEY:hush@host")])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str, endpoint: str | None) -> None:
    with pytest.raises(errors.SettingsError, match="must not contain credentials") as caught:
        open_backend(url, endpoint_url=endpoint)
    assert "hush" not in caught.value.message + caught.value.hint
