"""Dumb stores for a repository's objects: a directory or an S3 bucket, behind `backend.Backend`.

boto3 is imported only when a bucket is opened: it costs a third of a second.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from kpbackup import errors
from kpbackup.storage.backend import Backend, Capabilities, ObjectInfo, validate_key
from kpbackup.storage.locks import Lock

__all__ = ["Backend", "Capabilities", "ObjectInfo", "open_backend"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HINT = "use s3://bucket/prefix or file:///absolute/path"


def open_backend(
    url: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    profile: str | None = None,
    ca_file: str | None = None,
    lock: Lock | None = None,
) -> Backend:
    """The store that `url` names: `s3://bucket/prefix` or `file:///absolute/path` (percent-decoded).

    Nothing is contacted or created yet. `endpoint_url` (http or https) is for S3 servers other than Amazon's, `ca_file` for one
    whose certificate a private authority signed; `profile` names credentials of the AWS configuration; `lock` is put on
    every object written.

    Raises:
        SettingsError: nonsense, or options that do not belong together. Credentials are never part of a url.
    """
    split = _split(url, "the repository's url")
    if split.query or split.fragment:
        raise errors.SettingsError("the repository's url must not contain '?' or '#'", hint=f"{_HINT}; write # as %23, ? as %3F")
    if split.scheme == "file":
        return _open_local(split, is_s3=bool(endpoint_url or region or profile or ca_file or lock))
    if split.scheme == "s3":
        return _open_s3(split, endpoint_url=_endpoint(endpoint_url), region=region, profile=profile, ca_file=ca_file, lock=lock)
    raise errors.SettingsError(f"unknown kind of repository url {url!r}", hint=_HINT)


def _open_local(url: SplitResult, *, is_s3: bool) -> Backend:
    from kpbackup.storage.local import LocalBackend

    if is_s3:
        raise errors.SettingsError(
            "endpoint_url, region, profile, ca_file and lock belong to s3:// repositories", hint="remove them, or use s3://bucket/prefix"
        )
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute() or len(path.parts) < 2 or "\0" in str(path):
        raise errors.SettingsError(f"{url.geturl()!r} does not name a directory", hint="use three slashes: file:///absolute/path")
    return LocalBackend(path)


def _open_s3(
    url: SplitResult,
    *,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    ca_file: str | None,
    lock: Lock | None,
) -> Backend:
    from kpbackup.storage.s3 import S3Backend

    if not _BUCKET.fullmatch(url.netloc):
        raise errors.SettingsError(f"{url.netloc!r} is not a bucket name", hint=f"{_HINT}; small letters, digits, '-' and '.'")
    prefix = url.path.removeprefix("/").removesuffix("/")
    if prefix:
        try:
            validate_key(prefix)
        except errors.StorageError as exc:
            raise errors.SettingsError(f"{prefix!r} is not a usable prefix: {exc.message}", hint=_HINT) from exc
    return S3Backend(
        url.netloc, prefix, endpoint_url=endpoint_url, region=region, profile=profile, ca_file=ca_file, lock=lock
    )


def _endpoint(endpoint_url: str | None) -> str | None:
    if not endpoint_url:
        return None
    split = _split(endpoint_url, "the endpoint url")
    if split.scheme not in ("http", "https") or not split.hostname or split.query or split.fragment:
        raise errors.SettingsError(f"{endpoint_url!r} is not an endpoint url", hint="use https://host:port")
    return endpoint_url.rstrip("/")


def _split(url: str, what: str) -> SplitResult:
    try:
        split = urlsplit(url)
        _ = split.port if split.scheme != "s3" else None
    except ValueError as exc:
        raise errors.SettingsError(f"{what} cannot be read: {exc}", hint=_HINT) from exc
    if "@" in split.netloc:  # not shown: it may hold a secret
        raise errors.SettingsError(
            f"{what} must not contain credentials", hint="use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return split
