"""`kpbackup daemon` on the backup machine: it follows the source by itself while the story goes on."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

from demo.narrator import DemoFailed, Machine, Narrator

TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
_SAMPLE = re.compile(r"^(\w+)\{[^}]*\} (\S+)$", re.MULTILINE)


class Follower:
    """The daemon as a process; its log lies in `daemon.log` of its machine."""

    def __init__(self, voice: Narrator, machine: Machine, *, port: int) -> None:
        self._voice, self._machine, self._port = voice, machine, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it follows the source."""
        with self._machine.file("daemon.log").open("ab") as log:
            self._process = self._voice.spawn(self._machine, "daemon", log=log)
        self.wait(lambda: self.metrics().get("kpbackup_archive_following") == 1, "to follow the source")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Raises DemoFailed when it does not come to that in time, or the daemon ended."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the daemon did not come {what}:\n{self.log()[-3000:]}")
            time.sleep(0.2)

    def metrics(self) -> dict[str, float]:
        """What it shows at /metrics; nothing while it does not listen yet."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
                return {name: float(value) for name, value in _SAMPLE.findall(answer.read().decode())}
        except OSError:
            return {}

    def recovery_point(self) -> datetime:
        """The newest moment that can be restored from the bucket now, as any machine would find it."""
        status = json.loads(self._voice.quietly(self._machine, "status", "--json"))
        return datetime.fromisoformat(status["recovery_point"])

    def has_archived(self, moment: datetime) -> bool:
        return self.recovery_point() > moment

    def has_lost_source(self) -> bool:
        return "archive_interrupted" in self.log()

    def log(self) -> str:
        return self._machine.file("daemon.log").read_text(errors="replace")

    def end(self) -> None:
        """Ends it in order, if it was started. Raises DemoFailed when it ended otherwise."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            code = process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._voice.transcript += self.log()
        if code:
            raise DemoFailed(f"the daemon ended with {code}:\n{self.log()[-3000:]}")

    def kill(self) -> None:
        """Whatever happens, nothing outlives the demo."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def now() -> datetime:
    return datetime.now(UTC)
