"""An application asked over HTTP as its profile says, and judged by what it answers, never by a status code alone.

Redirects are not followed: an answer from elsewhere proves nothing. Passwords and tokens never appear in messages.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kpbackup import errors
from kpbackup.recovery.profile import Call

LARGEST_BYTES = 64 << 20
_KINDS: dict[str, Callable[[Any], bool]] = {
    "<text>": lambda found: isinstance(found, str) and found != "",
    "<number>": lambda found: isinstance(found, int | float) and not isinstance(found, bool),
    "<list>": lambda found: isinstance(found, list),
    "<truth>": lambda found: isinstance(found, bool),
    "<anything>": lambda found: True,
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass
class Asker:
    """Asks calls of one application, in order. `answer_of(query)` gives the column the restored database answers with."""

    base_url: str
    known: dict[str, str]
    answer_of: Callable[[str], list[str]]
    ca_file: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def ask(self, call: Call) -> str:
        """'' when the answer is right, else what is wrong with it."""
        try:
            status, kind, body = self._send(call)
        except (OSError, http.client.HTTPException) as exc:
            reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
            return self._hidden(f"no answer: {reason or type(exc).__name__}")
        if status != call.status:
            return f"status {status}, {call.status} expected"
        if not kind.startswith(call.content_type):
            return f"its body is {kind or 'of no kind'}, {call.content_type} expected: did a front end answer for it?"
        if call.json is None and not (call.take or call.counts or call.lists):
            return ""
        try:
            document = json.loads(body)
        except ValueError:
            return "its body is no JSON"
        return self._hidden(self._judge(call, document))

    def _judge(self, call: Call, document: Any) -> str:
        wrong = difference(self._filled(call.json), document) if call.json is not None else ""
        if wrong:
            return wrong
        for name, place in call.take.items():
            self.known[name] = str(at(document, place))
        for count in call.counts:
            wanted, found = self.answer_of(count.query)[:1], at(document, count.at)
            if [str(found)] != wanted:
                return f"{count.at} is {found}, the restored database has {wanted[0] if wanted else 'nothing'}"
        for listing in call.lists:
            listed, expected = at(document, listing.at), sorted(self.answer_of(listing.query))
            if not isinstance(listed, list):
                return f"{listing.at or 'the answer'} is no list"
            there = sorted(str(at(item, listing.value)) for item in listed)
            if there != expected:
                return f"it lists {len(there)} times {listing.value}, the restored database has {len(expected)}, or others"
        return ""

    def _send(self, call: Call) -> tuple[int, str, bytes]:
        request = urllib.request.Request(self.base_url.rstrip("/") + self._filled(call.path), method=call.method)
        request.add_header("Accept", "application/json")
        if call.body is not None:
            request.data = json.dumps(self._filled(call.body)).encode()
            request.add_header("Content-Type", "application/json")
        if call.bearer:
            request.add_header("Authorization", f"Bearer {self.known.get(call.bearer, '')}")
        context = ssl.create_default_context(cafile=self.ca_file or None)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
        try:
            answer = opener.open(request, timeout=call.timeout_s)
        except urllib.error.HTTPError as exc:
            answer = exc
        with answer:
            return answer.status or 0, answer.headers.get("Content-Type", ""), answer.read(LARGEST_BYTES)

    def _filled(self, value: Any) -> Any:
        """The value with `{name}` replaced by what is known, in every text of it."""
        if isinstance(value, str):
            for name, text in self.known.items():
                value = value.replace("{" + name + "}", text)
            return value
        if isinstance(value, dict):
            return {name: self._filled(item) for name, item in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list) else value

    def _hidden(self, text: str) -> str:
        for secret in (*self.secrets, *(value for name, value in self.known.items() if name != "user")):
            text = text.replace(secret, "***") if secret else text
        return text


def at(document: Any, place: str) -> Any:
    """What lies at a dotted place, '' being the document itself; None where there is nothing."""
    for step in place.split(".") if place else ():
        document = document.get(step) if isinstance(document, dict) else None
    return document


def difference(wanted: Any, found: Any, where: str = "the answer") -> str:
    """What of `wanted` is not in `found`, '' when all of it is. Values found are not repeated: they may be secret."""
    if isinstance(wanted, str) and wanted in _KINDS:
        return "" if _KINDS[wanted](found) else f"{where} is no {wanted[1:-1]}"
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"{where} is no object"
        for name, value in wanted.items():
            if name not in found:
                return f"{where} lacks {name}"
            wrong = difference(value, found[name], f"{where}.{name}")
            if wrong:
                return wrong
        return ""
    return "" if type(wanted) is type(found) and wanted == found else f"{where} is not {wanted!r}"


def failed(call: Call, wrong: str, where: str) -> errors.StepFailed:
    return errors.StepFailed(
        f"verification failed: {call.name} ({call.method} {call.path.partition('?')[0]} at {where}): {wrong}",
        hint="do not switch; see the application's own log, mend it, then resume",
    )

