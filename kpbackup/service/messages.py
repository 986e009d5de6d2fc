"""What people and chat services are told: one message, and the bodies that Slack, DingTalk, WeCom and Feishu take.

Pure: the moment is passed in. A template's placeholders are replaced inside its strings alone, so no text can break the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from kpbackup.model import times

LONGEST_TEXT = 1500  # WeCom takes 4,096 bytes, and a character may need three

Document = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """`occasion` is one of config.notify.OCCASIONS, `level` info, warning or error, `kind` the job or verb it is about."""

    occasion: str
    level: str
    kind: str
    source: str
    title: str
    text: str
    at: datetime

    @property
    def fields(self) -> dict[str, str]:
        """What a template may name."""
        return {**asdict(self), "at": times.utc_text(self.at), "text": self.text[:LONGEST_TEXT]}


@dataclass(frozen=True)
class Post:
    """A request to be made: query parameters are added to the address."""

    body: bytes
    query: dict[str, str]


def post(message: Message, *, format: str, now: datetime, template: str | None = None, secret: str = "") -> Post:
    """The request for a service. `secret` signs it, for DingTalk in the address, for Feishu in the body."""
    document, query = _document(message, format), {}
    if template is not None:
        document = filled(json.loads(template), message.fields)
    if secret and format == "dingtalk":
        stamp = str(int(now.timestamp() * 1000))
        query = {"timestamp": stamp, "sign": _signed(key=secret, text=f"{stamp}\n{secret}")}
    if secret and format == "feishu":
        stamp = str(int(now.timestamp()))
        document = {**document, "timestamp": stamp, "sign": _signed(key=f"{stamp}\n{secret}", text="")}
    return Post(json.dumps(document, ensure_ascii=False).encode(), query)


def with_query(address: str, query: dict[str, str]) -> str:
    """The address with further parameters."""
    if not query:
        return address
    parts = urllib.parse.urlsplit(address)
    both = "&".join(part for part in (parts.query, urllib.parse.urlencode(query)) if part)
    return urllib.parse.urlunsplit(parts._replace(query=both))


def is_taken(format: str, answer: bytes) -> bool:
    """Whether an answer with status 200 means that the message arrived: three services tell a refusal in the body alone."""
    key = {"dingtalk": "errcode", "wecom": "errcode", "feishu": "code"}.get(format)
    if key is None:
        return True
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get(key, found.get("StatusCode")) == 0


def filled(tree: Any, fields: dict[str, str]) -> Any:
    """The tree with each `{name}` in its strings replaced; unknown names stay as they are."""
    if isinstance(tree, dict):
        return {key: filled(value, fields) for key, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, fields) for value in tree]
    if not isinstance(tree, str):
        return tree
    pieces = tree.split("{")
    for number, piece in enumerate(pieces[1:], start=1):
        name, brace, rest = piece.partition("}")
        pieces[number] = fields[name] + rest if brace and name in fields else "{" + piece
    return "".join(pieces)


def event(message: Message, *, namespace: str, pod: str) -> Document:
    """The message as a Kubernetes Event of the pod."""
    stamp = message.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{pod}.", "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod, "namespace": namespace},
        "reason": "BackupRecovered" if message.level == "info" else "BackupFailed",
        "message": f"{message.title}: {message.text}"[:1024],
        "type": "Normal" if message.level == "info" else "Warning",
        "source": {"component": "kpbackup"},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def _document(message: Message, format: str) -> Document:
    fields = message.fields
    title, text = fields["title"], fields["text"]
    if format == "slack":
        escaped = f"*{title}*\n{text}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": escaped}
    if format == "dingtalk":
        return {"msgtype": "markdown", "markdown": {"title": title, "text": f"#### {title}\n\n{text}"}}
    if format == "wecom":
        return {"msgtype": "markdown", "markdown": {"content": f"**{title}**\n{text}"}}
    if format == "feishu":
        return {"msg_type": "text", "content": {"text": f"{title}\n{text}"}}
    return dict(fields)


def _signed(*, key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()
