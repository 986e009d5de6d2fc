"""The kinds of value a setting can have, each with the check that gives a user a useful sentence.

No value is ever quoted in a message of this module unless it cannot hold a secret.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any
from urllib.parse import urlsplit

import pydantic

from kpbackup import quantities

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}|age1pq1[02-9ac-hj-np-z]{1952}")
_PUBLIC_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a duration: {quantities.DURATION_EXAMPLES}")
    return quantities.parse_duration(str(value))


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"must be a size: {quantities.SIZE_EXAMPLES}")
    return quantities.parse_size(str(value))


def _rate(value: Any) -> int:
    return _size(value.removesuffix("/s") if isinstance(value, str) else value)


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise ValueError("must be a whole number")
    return value


def _price(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("not a price; write a number such as 0.023") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError("not a price; write a number such as 0.023")
    return float(value)


def _answer_text(value: Any) -> Any:
    """What a query is expected to answer may be written as text or as a number; truth values are spelt 1 and 0 by the servers."""
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name; UTC works without a zone database.

    Raises:
        ValueError: unknown name.
    """
    import zoneinfo

    if name.upper() == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:  # the library raises all three, by kind of nonsense
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        suggestion = f"; did you mean {near[0]}?" if near else "; write a name such as UTC or Europe/Berlin"
        raise ValueError(f"unknown time zone {name!r}{suggestion}") from exc


def _zone_name(value: str) -> str:
    zone_of(value)
    return value


def _cron(value: str) -> str:
    import croniter

    if len(value.split()) != 5:
        raise ValueError(f"{value!r} is not a cron expression of five fields: minute hour day month weekday, such as '0 2 * * *'")
    try:
        # Any fixed day will do: only whether the expression has a next run at all is asked.
        croniter.croniter(value, datetime(2024, 1, 1, tzinfo=UTC)).get_next()
    except croniter.CroniterBadDateError as exc:
        raise ValueError(f"{value!r} names a day that never comes") from exc
    except (ValueError, KeyError) as exc:
        raise ValueError(f"{value!r} is not a cron expression: {exc}") from exc
    return value


def _repository_url(value: str) -> str:
    allowed = "write s3://bucket/prefix or file:///absolute/path"
    parts = urlsplit(value)
    if parts.username or parts.password or "@" in parts.netloc:
        raise ValueError("must not hold credentials; give them by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or an AWS profile")
    if parts.query or parts.fragment or ".." in parts.path.split("/"):
        raise ValueError(f"must not hold '?', '#' or '..'; {allowed}")
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc):
        return value.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/") and parts.path.strip("/"):
        return value.rstrip("/")
    raise ValueError(f"{value!r} is not a repository; {allowed}")


def _host(value: str) -> str:
    if re.search(r"[\s/@]", value) or not value:
        raise ValueError("must be a host name or an address alone, without scheme, user or path")
    if value.count(":") == 1:
        raise ValueError(f"{value!r} must be the host alone; its port belongs into the key `port` beside it")
    return value


def _endpoint_url(value: str) -> str:
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials; give them by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or an AWS profile")
    try:
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good or parts.path.strip("/") or parts.query:
        raise ValueError(f"{value!r} is not an endpoint; write https://host:port")
    return value.rstrip("/")


def _url(value: str) -> str:
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is not an address; write https://host or http://host:port")
    return value.rstrip("/")


def split_listen(value: str) -> tuple[str, int]:
    """Host and port of `0.0.0.0:8080`, `[::]:8080`, `:8080`.

    Raises:
        ValueError: any other form.
    """
    host, _, port = value.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or (":" in bare and bare == host) or ":" not in value:
        raise ValueError(f"{value!r} is not an address to listen on; write host:port, such as 0.0.0.0:8080 or [::]:8080")
    return bare or "0.0.0.0", int(port)  # nosec B104


def _listen(value: str) -> str:
    split_listen(value)
    return value


def recipient(value: str) -> str:
    """The recipient itself.

    Raises:
        ValueError: what is wrong with it, never quoting it.
    """
    if "AGE-SECRET-KEY" in value.upper():
        raise ValueError("this is a private identity, which must never be here; write its public half, age1...")
    if not _RECIPIENT.fullmatch(value):
        raise ValueError("not an age recipient; one looks like age1 followed by 58 small letters and digits (check for a typo)")
    return value


def public_key(value: str) -> str:
    """The public key itself.

    Raises:
        ValueError: what is wrong with it.
    """
    if not _PUBLIC_KEY.fullmatch(value):
        raise ValueError("not a minisign public key; one is the second line of the .pub file: RW and 54 more characters")
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        raise ValueError("must be text; put it in quotes")
    return value


def _path(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or "\0" in value or "\n" in value):
        raise ValueError("must be a path")
    return value


Text = Annotated[str, pydantic.BeforeValidator(_text)]
Path = Annotated[str, pydantic.BeforeValidator(_text), pydantic.BeforeValidator(_path)]
Whole = Annotated[int, pydantic.BeforeValidator(_whole_number)]
Port = Annotated[Whole, pydantic.Field(ge=1, le=65535)]
Duration = Annotated[timedelta, pydantic.BeforeValidator(_duration)]
Size = Annotated[int, pydantic.BeforeValidator(_size)]
Rate = Annotated[int, pydantic.BeforeValidator(_rate), pydantic.Field(ge=1024)]
Host = Annotated[Text, pydantic.AfterValidator(_host)]
ZoneName = Annotated[Text, pydantic.AfterValidator(_zone_name)]
Cron = Annotated[Text, pydantic.AfterValidator(_cron)]
RepositoryUrl = Annotated[Text, pydantic.AfterValidator(_repository_url)]
EndpointUrl = Annotated[Text, pydantic.AfterValidator(_endpoint_url)]
Url = Annotated[Text, pydantic.AfterValidator(_url)]
Listen = Annotated[Text, pydantic.AfterValidator(_listen)]
Recipient = Annotated[Text, pydantic.AfterValidator(recipient)]
PublicKey = Annotated[Text, pydantic.AfterValidator(public_key)]
Price = Annotated[float, pydantic.BeforeValidator(_price)]
Answer = Annotated[str, pydantic.BeforeValidator(_answer_text)]
