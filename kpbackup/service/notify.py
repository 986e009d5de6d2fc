"""Telling others: webhooks, Kubernetes Events and a dead-man switch, each in a thread of its own.

Idea: `tell` and `succeeded` only put something into queues, so that nothing a service does can hold up or fail a backup. A
message is tried several times with growing pauses, then given up, logged and counted. Addresses are secrets: they are in no
log, error or metric, which call a channel by its name.

Limits: what waits is in memory; a process that is killed loses it, and one that ends waits only a bounded time for the rest.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kpbackup import config, errors, logs
from kpbackup.config import secrets
from kpbackup.config.notify import WebhookSettings
from kpbackup.service import cluster, messages
from kpbackup.service.messages import Message

WAITING = 100  # messages of one channel; a service that is away for long gets the first of them
ANSWER_BYTES = 64 << 10
DEADMAN, EVENTS = "deadman", "kubernetes"

logger = logging.getLogger(__name__)


class Refused(Exception):
    """It did not arrive, and why, without the address. `final`: trying again is of no use."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


Send = Callable[[Message], None]  # raises Refused


@dataclass(frozen=True)
class Counted:
    """What became of a channel's messages since the process began; `delivered` is how the last one ended."""

    sent: int = 0
    lost: int = 0
    delivered: bool = True


class Channel:
    """One receiver with its queue and thread; the thread begins with the first message."""

    def __init__(self, name: str, send: Send, *, attempts: int, occasions: Sequence[str]) -> None:
        self.name, self.occasions, self.counted = name, occasions, Counted()
        self._send, self._attempts = send, attempts
        self._queue: queue.Queue[Message] = queue.Queue(WAITING)
        self._closing, self._counting = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, message: Message) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"notify-{self.name}", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._give_up(message, "too many messages wait already")

    def is_idle(self) -> bool:
        return self._queue.unfinished_tasks == 0

    def close(self) -> None:
        """No more pauses between attempts."""
        self._closing.set()

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            try:
                self._deliver(message)
            finally:
                self._queue.task_done()

    def _deliver(self, message: Message) -> None:
        for attempt in range(self._attempts):
            try:
                self._send(message)
                return self._count(sent=1)
            except Refused as exc:
                if exc.final or attempt + 1 == self._attempts:
                    return self._give_up(message, str(exc))
            self._closing.wait(2.0**attempt)

    def _count(self, *, sent: int = 0, lost: int = 0) -> None:
        """Called by the channel's thread and, when its queue is full, by whoever tells it something."""
        with self._counting:
            self.counted = Counted(self.counted.sent + sent, self.counted.lost + lost, delivered=bool(sent))

    def _give_up(self, message: Message, reason: str) -> None:
        self._count(lost=1)
        logs.event(
            logger, "notification_lost", level=logging.ERROR, channel=self.name, reason=reason, title=message.title,
            text=message.text,
        )


class Notifier:
    """All channels of one process. Without any, telling costs nothing."""

    def __init__(self, source: str, channels: Sequence[Channel] = (), *, deadman_jobs: Sequence[str] = ()) -> None:
        self._source, self._channels, self._deadman_jobs = source, channels, deadman_jobs
        self._pinged_at: datetime | None = None

    def tell(self, occasion: str, *, kind: str, level: str, title: str, text: str) -> None:
        """Tells everybody who wants to hear of this occasion."""
        message = Message(occasion, level, kind, self._source, f"{self._source}: {title}", text, datetime.now(UTC))
        for channel in self._channels:
            if occasion in channel.occasions:
                channel.put(message)

    def succeeded(self, kind: str) -> None:
        """Reports a success to the dead-man switch, at most once a minute."""
        now = datetime.now(UTC)
        if kind not in self._deadman_jobs or (self._pinged_at and (now - self._pinged_at).total_seconds() < 60):
            return
        self._pinged_at = now
        for channel in self._channels:
            if channel.name == DEADMAN:
                channel.put(Message("success", "info", kind, self._source, f"{kind} succeeded", "", now))

    def counted(self) -> Mapping[str, Counted]:
        """Channel -> what became of its messages."""
        return {channel.name: channel.counted for channel in self._channels}

    def close(self, wait_s: float) -> None:
        """Waits for what is under way, at most so long; the rest is lost with the process, and said so."""
        deadline = time.monotonic() + wait_s
        for channel in self._channels:
            channel.close()
        while not all(channel.is_idle() for channel in self._channels) and time.monotonic() < deadline:
            time.sleep(0.05)
        for channel in self._channels:
            if not channel.is_idle():
                logs.event(logger, "notification_abandoned", level=logging.WARNING, channel=channel.name)


def notifier(settings: config.Settings, source: str, environ: Mapping[str, str]) -> Notifier:
    """The notifier of the settings.

    Raises:
        SettingsError: an address or a secret cannot be read, or is no http(s) address.
    """
    told, channels = settings.notify, []
    timeout_s = told.timeout.total_seconds()
    for hook in told.webhooks:
        channels.append(Channel(hook.name, _webhook(hook, environ, timeout_s), attempts=told.attempts, occasions=hook.occasions))
    if told.deadman_url is not None or told.deadman_url_file is not None:
        text = secrets.password(told.deadman_url, told.deadman_url_file, key="notify.deadman_url_file").get_secret_value()
        address = _address(text, "notify.deadman_url_file" if told.deadman_url_file else "notify.deadman_url")
        channels.append(Channel(DEADMAN, _deadman(address, timeout_s), attempts=told.attempts, occasions=()))
    if told.kubernetes_events:
        send = pod_events(cluster.in_cluster(environ), environ.get("POD_NAME") or environ.get("HOSTNAME", ""))
        channels.append(Channel(EVENTS, send, attempts=told.attempts, occasions=("failure", "recovered")))
    return Notifier(source, channels, deadman_jobs=told.deadman_jobs)


def _webhook(hook: WebhookSettings, environ: Mapping[str, str], timeout_s: float) -> Send:
    if hook.url_variable is not None:
        address = _address(environ.get(hook.url_variable, ""), f"the environment variable {hook.url_variable}")
    else:
        key = f"notify.webhooks ({hook.name}).url_file"
        address = _address(secrets.password(None, hook.url_file, key=key).get_secret_value(), key)
    secret = secrets.password(None, hook.secret_file, key=f"notify.webhooks ({hook.name}).secret_file").get_secret_value().strip()

    def send(message: Message) -> None:
        made = messages.post(message, format=hook.format, now=datetime.now(UTC), template=hook.template, secret=secret)
        request = urllib.request.Request(messages.with_query(address, made.query), data=made.body, method="POST")
        request.add_header("Content-Type", "application/json; charset=utf-8")
        if not messages.is_taken(hook.format, _answer(request, timeout_s)):
            raise Refused("the service answered that it does not take the message")

    return send


def _deadman(address: str, timeout_s: float) -> Send:
    def send(message: Message) -> None:
        _answer(urllib.request.Request(address), timeout_s)

    return send


def pod_events(found: cluster.Cluster | None, pod: str) -> Send:
    """Messages as Kubernetes Events of the pod.

    Raises:
        SettingsError: this process is in no pod.
    """
    if found is None or not pod:
        raise errors.SettingsError(
            "notify.kubernetes_events is on, but this is no Kubernetes pod with a service account",
            hint="switch it off here; inside a pod mount the token and set POD_NAME, as the chart does",
        )

    def send(message: Message) -> None:
        document = messages.event(message, namespace=found.namespace, pod=pod)
        try:
            found.create(f"/api/v1/namespaces/{found.namespace}/events", document)
        except errors.KpbackupError as exc:
            raise Refused(exc.message, final=isinstance(exc, errors.PrivilegeMissing)) from exc

    return send


def _address(text: str, key: str) -> str:
    address = text.strip()
    try:
        parts = urllib.parse.urlsplit(address)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and address.isascii()
    except ValueError:
        is_good = False
    if not is_good or any(character <= " " for character in address):
        raise errors.SettingsError(f"{key} holds no http or https address", hint="put the address alone into it, on one line")
    return address


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET without its body, and look delivered."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects())


def _answer(request: urllib.request.Request, timeout_s: float) -> bytes:
    try:
        with _opener.open(request, timeout=timeout_s) as answer:
            found: bytes = answer.read(ANSWER_BYTES)
            return found
    except urllib.error.HTTPError as refusal:
        with refusal:
            is_final = 400 <= refusal.code < 500 and refusal.code not in (408, 429)
            raise Refused(f"it answered {refusal.code}", final=is_final) from None
    except urllib.error.URLError as exc:
        raise Refused(f"no answer: {_reason(exc.reason)}") from None
    except Exception as exc:  # http.client quotes what it dislikes, the address maybe: its kind must do
        raise Refused(f"no answer: {_reason(exc)}") from None


def _reason(exc: object) -> str:
    told = getattr(exc, "strerror", None) if isinstance(exc, OSError) else None
    return str(told or type(exc).__name__)
