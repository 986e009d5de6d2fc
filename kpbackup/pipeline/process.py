"""Worker processes: a conversation of framed messages between the parent and `python -m module`.

Idea: Python threads share one processor, processes do not; so dumping and loading run in workers.
The conversation is strictly request and response; one parent thread talks to one worker.

    frame: u32 little-endian body length | u8 type (0 JSON object, 1 bytes) | body

Rules that keep it free of deadlock and orphans:
- An error ends the worker: it sends `{"error": {...}}` and exits, so that a parent which is still
  writing gets a broken pipe instead of blocking, and then finds the error in the pipe.
- stderr is drained all the time by a thread that keeps the last `STDERR_TAIL_BYTES`.
- A worker ends when its stdin closes: a parent that crashes, even by SIGKILL, leaves none behind.
- A worker has a session of its own, so Ctrl-C in a terminal reaches only the parent, which decides.
- The worker's descriptors 0 and 1 are replaced at once: a stray `print` goes to stderr.

Limits: a body is at most `FRAME_LIMIT_BYTES`. Messages carry secrets (passwords, identities): they
go through pipes only, never argv, environment or logs.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, TypeAlias, cast

from kpbackup import errors

PIPE_BYTES = 1 << 20  # a whole message fits, so the two sides need not take turns within one
FRAME_LIMIT_BYTES = 256 << 20
STDERR_TAIL_BYTES = 4096

Message: TypeAlias = dict[str, Any]

_FRAME = struct.Struct("<IB")
_JSON = 0
_BYTES = 1
# A pipe of 64 KiB makes both sides take turns for each frame; 1 MiB is the usual limit for unprivileged users.
_PIPE_BYTES = 1 << 20
_END_TIMEOUT_S = 10.0
# An error must fit into the smallest pipe, so that a worker can always leave it behind and exit.
_ERROR_TEXT_LIMIT = 2500


def _write_frame(descriptor: int, kind: int, body: bytes | bytearray | memoryview) -> None:
    # No buffered stream: it would keep unsent bytes and block on them once more when it is closed.
    if len(body) > FRAME_LIMIT_BYTES:
        raise errors.InternalError(f"cannot send a message of {len(body)} bytes: the limit is {FRAME_LIMIT_BYTES}")
    head = _FRAME.pack(len(body), kind)
    rest = memoryview(body)[max(0, os.writev(descriptor, (head, body)) - len(head)) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read_frame(stream: IO[bytes]) -> Message | bytes | None:
    """The next message, or None at the end of the stream, even in the middle of a frame."""
    head = stream.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    size, kind = _FRAME.unpack(head)
    if size > FRAME_LIMIT_BYTES or kind not in (_JSON, _BYTES):
        raise errors.InternalError("cannot read a worker message: this is no message frame")
    body = stream.read(size)
    if len(body) < size:
        return None
    if kind == _BYTES:
        return body
    message = json.loads(body)
    if not isinstance(message, dict):
        raise errors.InternalError("cannot read a worker message: its JSON is no object")
    return message


def _encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def _error_message(error: errors.KpbackupError) -> Message:
    content: Message = {
        "class": type(error).__name__,
        "message": error.message[:_ERROR_TEXT_LIMIT],
        "hint": error.hint[:_ERROR_TEXT_LIMIT],
    }
    if isinstance(error, errors.DatabaseError):
        content["number"] = error.number
    return {"error": content}


def _error_from(content: Message) -> errors.KpbackupError:
    """The error a worker sent, as the same class; a class we do not know becomes InternalError."""
    known = getattr(errors, str(content.get("class")), None)
    kind = known if isinstance(known, type) and issubclass(known, errors.KpbackupError) else errors.InternalError
    error = kind(str(content.get("message", "")), hint=str(content.get("hint", "")))
    if isinstance(error, errors.DatabaseError):
        error.number = int(content.get("number", 0))
    return error


class WorkerProcess:
    """The parent's side of one worker, started at once. Also a context manager: leaving it closes the worker.

    Only `kill` may be called from another thread than the one that talks.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self._closed = False
        self._killed = False
        self._tail = bytearray()
        self._talking = threading.Lock()  # so that `kill` never closes a pipe under a thread that is using it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pipesize=PIPE_BYTES,
                start_new_session=True,
            )
        except OSError as exc:
            raise errors.LocalIOError(f"cannot start worker {module}: {exc.strerror}") from exc
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin: IO[bytes] = self._process.stdin
        self._stdout = io.BufferedReader(cast(io.RawIOBase, self._process.stdout))
        self._stderr: IO[bytes] = self._process.stderr
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # the per-user limit may be used up: then it stays at 64 KiB
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._drain = threading.Thread(target=self._drain_stderr, name=f"stderr of {module}", daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Sends a JSON message. Raises the worker's own error if it sent one meanwhile, InternalError if it died."""
        self._write(_JSON, _encode(message))

    def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Sends raw bytes; errors as `send`."""
        self._write(_BYTES, data)

    def receive(self) -> Message | bytes:
        """The worker's next message; blocks until there is one.

        Raises the error the worker sent, as the same class, or InternalError with the tail of its stderr if it died.
        """
        with self._talking:
            self._check_usable()
            message = self._next_message()
            if message is None:
                raise self._death()
        if isinstance(message, dict) and "error" in message:
            raise _error_from(message["error"])
        return message

    def close(self) -> None:
        """Ends the worker by closing its pipes; kills it if it has not gone after 10 seconds. Repeating it is harmless."""
        with self._talking:
            if self._closed:
                return
            self._closed = True
            self._stdin.close()
            self._stdout.close()
            try:
                self._process.wait(timeout=_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            # Bounded: a grandchild that inherited stderr may keep it open.
            self._drain.join(_END_TIMEOUT_S)

    def kill(self) -> None:
        """Ends the worker at once (SIGKILL), from any thread; a thread inside `send` or `receive` gets InternalError."""
        self._killed = True
        self._process.kill()
        self._process.wait()
        # Now nobody can be blocked inside `send` or `receive` any more, so this does not wait for long.
        self.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        with self._talking:
            self._check_usable()
            try:
                _write_frame(self._stdin.fileno(), kind, body)
            except OSError as exc:
                raise self._last_words() from exc

    def _next_message(self) -> Message | bytes | None:
        try:
            return _read_frame(self._stdout)
        except ValueError as exc:
            raise errors.InternalError(f"cannot read a message of worker {self.module}: it is no JSON") from exc

    def _last_words(self) -> errors.KpbackupError:
        """Why the worker no longer listens: the error it left in the pipe, or its death."""
        while (message := self._next_message()) is not None:
            if isinstance(message, dict) and "error" in message:
                return _error_from(message["error"])
        return self._death()

    def _death(self) -> errors.InternalError:
        if self._killed:
            return errors.InternalError(f"worker {self.module} was ended on request")
        try:
            status = self._process.wait(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return errors.InternalError(f"worker {self.module} closed its output but did not end, so it was killed")
        self._drain.join(_END_TIMEOUT_S)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        tail = bytes(self._tail).decode("utf-8", "replace").strip()
        return errors.InternalError(f"worker {self.module} {how}; the end of its stderr: {tail or '(empty)'}")

    def _drain_stderr(self) -> None:
        with self._stderr:
            while piece := os.read(self._stderr.fileno(), 65536):
                self._tail = (self._tail + piece)[-STDERR_TAIL_BYTES:]

    def _check_usable(self) -> None:
        if self._closed:
            how = "was ended on request" if self._killed else "was already closed"
            raise errors.InternalError(f"worker {self.module} {how}")


class WorkerChannel:
    """The worker's side. Made first thing in the worker: it takes over stdin and stdout.

    When the parent closes the pipe or dies, `receive`, `send` and `send_bytes` end the process by SystemExit,
    so that `with` blocks and `finally` still run.
    """

    def __init__(self) -> None:
        atexit.register(gc.freeze)  # else cycles are looked for at the end, which takes a tenth of the whole start
        self._input = os.fdopen(os.dup(0), "rb")
        self._output = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def receive(self) -> Message | bytes:
        """The parent's next message."""
        message = _read_frame(self._input)
        if message is None:
            raise SystemExit(0)
        return message

    def send(self, message: Message) -> None:
        """Sends a JSON message to the parent."""
        self._write(_JSON, _encode(message))

    def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Sends raw bytes to the parent."""
        self._write(_BYTES, data)

    def serve_after_start(self, make: Callable[[Message], Callable[[Message], None]]) -> None:
        """As serve, with the handler that `make` gives for the first message, which is answered with {"ready": true}."""
        handler: Callable[[Message], None] | None = None

        def handle(message: Message) -> None:
            nonlocal handler
            if handler is None:
                handler = make(message)
                self.send({"ready": True})
            else:
                handler(message)

        self.serve(handle)

    def serve(self, handler: Callable[[Message], None]) -> None:
        """Calls `handler` for each JSON message until the parent closes the pipe.

        The handler takes the bytes that follow a message by `receive` and answers by `send`. A KpbackupError
        it raises is sent to the parent and ends the worker; any other error ends it with a traceback on stderr.
        """
        try:
            while True:
                message = self.receive()
                if not isinstance(message, dict):
                    raise errors.InternalError("cannot serve: bytes came where a request was expected")
                handler(message)
        except errors.KpbackupError as exc:
            self.send(_error_message(exc))
            raise SystemExit(0) from exc

    def _write(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        try:
            _write_frame(self._output, kind, body)
        except BrokenPipeError:
            raise SystemExit(1) from None
