"""What is posted to each service, judged by their public rules."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup.service import messages
from kpbackup.service.messages import Message

AT = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
MESSAGE = Message("failure", "error", "full", "shop-db", "shop-db: full failed", 'cannot connect to "db" <1 & 2>', AT)


def posted(format: str, **more: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(messages.post(MESSAGE, format=format, now=AT, **more).body)
    return found


def test_each_service_gets_its_own_form() -> None:
    assert posted("json") == {
        "occasion": "failure", "level": "error", "kind": "full", "source": "shop-db", "title": MESSAGE.title,
        "text": MESSAGE.text, "at": "2026-05-01T10:00:00Z",
    }  # fmt: skip
    assert posted("slack") == {"text": '*shop-db: full failed*\ncannot connect to "db" &lt;1 &amp; 2&gt;'}
    assert posted("dingtalk")["msgtype"] == "markdown" and MESSAGE.text in str(posted("dingtalk")["markdown"])
    assert posted("wecom") == {"msgtype": "markdown", "markdown": {"content": f"**{MESSAGE.title}**\n{MESSAGE.text}"}}
    assert posted("feishu") == {"msg_type": "text", "content": {"text": f"{MESSAGE.title}\n{MESSAGE.text}"}}


def test_dingtalk_is_signed_in_the_address() -> None:
    """base64(HMAC-SHA256(secret, "timestamp\\nsecret")), the timestamp in milliseconds."""
    made = messages.post(MESSAGE, format="dingtalk", now=AT, secret="SECx")
    stamp = str(int(AT.timestamp()) * 1000)
    signed = base64.b64encode(hmac.new(b"SECx", f"{stamp}\nSECx".encode(), hashlib.sha256).digest()).decode()
    address = messages.with_query("https://oapi.dingtalk.com/robot/send?access_token=t", made.query)
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))
    assert query == {"access_token": "t", "timestamp": stamp, "sign": signed}


def test_feishu_is_signed_in_the_body() -> None:
    """The other way round: "timestamp\\nsecret" is the key, the text is empty, the timestamp in seconds."""
    made = messages.post(MESSAGE, format="feishu", now=AT, secret="x")
    stamp = str(int(AT.timestamp()))
    signed = base64.b64encode(hmac.new(f"{stamp}\nx".encode(), b"", hashlib.sha256).digest()).decode()
    assert made.query == {} and (json.loads(made.body)["timestamp"], json.loads(made.body)["sign"]) == (stamp, signed)


@given(st.text(), st.text())
def test_a_template_stays_json_whatever_the_text(title: str, text: str) -> None:
    template = '{"a": ["{title}: {text}", "{unknown} {", 3], "{title}": {"b": "{level}"}}'
    message = Message("drill", "info", "drill", "s", title, text, AT)
    found = json.loads(messages.post(message, format="json", now=AT, template=template).body)
    assert found == {"a": [f"{title}: {text[:1500]}", "{unknown} {", 3], "{title}": {"b": "info"}}


@pytest.mark.parametrize(
    ("format", "answer", "is_taken"),
    [
        ("dingtalk", b'{"errcode": 0}', True), ("dingtalk", b'{"errcode": 310000, "errmsg": "sign not match"}', False),
        ("wecom", b'{"errcode": 93000}', False), ("feishu", b'{"code": 0}', True), ("feishu", b'{"StatusCode": 0}', True),
        ("feishu", b'{"code": 19021}', False), ("feishu", b"<html>", False), ("slack", b"ok", True), ("json", b"", True),
    ],
)  # fmt: skip
def test_a_refusal_in_the_body_is_seen(format: str, answer: bytes, is_taken: bool) -> None:
    assert messages.is_taken(format, answer) is is_taken


def test_a_long_text_fits_into_the_smallest_service() -> None:
    message = Message("failure", "error", "full", "s", "t", "数" * 10_000, AT)
    assert len(json.loads(messages.post(message, format="wecom", now=AT).body)["markdown"]["content"].encode()) < 5000
