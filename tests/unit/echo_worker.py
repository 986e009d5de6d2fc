"""A tiny worker for `test_process.py`: `python -m tests.unit.echo_worker`."""

from __future__ import annotations

import os
import signal
import sys

from kpbackup import errors
from kpbackup.pipeline.process import Message, WorkerChannel


class EchoWorker:
    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel

    def handle(self, message: Message) -> None:
        match message["do"]:
            case "echo":
                self._channel.send(message)
            case "echo_bytes":
                data = self._channel.receive()
                assert isinstance(data, bytes)
                self._channel.send_bytes(data)
            case "pid_and_session":
                self._channel.send({"pid": os.getpid(), "session": os.getsid(0), "cwd": os.getcwd()})
            case "print":
                print("this must not reach the conversation", flush=True)
                os.write(1, b"nor this")
                self._channel.send({"stdin": sys.stdin.read()})
            case "mismatch":
                raise errors.RestoreMismatch("cannot verify table a.b: 3 rows differ", hint="load it again")
            case "database_error":
                raise errors.DatabaseError("cannot read a.b: server says no", number=1205)
            case "long_error":
                raise errors.IntegrityError("é" * 1_000_000, hint="\U0001f600" * 1_000_000)
            case "defect":
                sys.stderr.write("noise\n" * 200_000)
                raise ZeroDivisionError("the reason on stderr")
            case "signal":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "sleep":
                signal.pause()
            case "garbage":
                os.write(int(message["descriptor"]), b"x" * 100)


if __name__ == "__main__":
    channel = WorkerChannel()
    channel.serve(EchoWorker(channel).handle)
