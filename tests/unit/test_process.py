"""Worker processes: the conversation, errors, deaths, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.pipeline.process import WorkerProcess

ROOT = Path(__file__).parents[2]
WORKER = "tests.unit.echo_worker"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with WorkerProcess(WORKER) as process:
        yield process


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, *, within_s: float = 120.0) -> bool:
    end = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_json_and_bytes_go_both_ways(worker: WorkerProcess) -> None:
    message = {"do": "echo", "text": "é\u2028\U0001f600", "numbers": [1, -2, 3.5, None, True], "big": 2**63}
    for _ in range(3):
        worker.send(message)
        assert worker.receive() == message
    for data in (b"", b"x", os.urandom(3_000_000), bytes(40 << 20)):
        worker.send({"do": "echo_bytes"})
        worker.send_bytes(memoryview(data))
        assert worker.receive() == data


def test_a_worker_has_its_own_session_and_our_folder(worker: WorkerProcess) -> None:
    worker.send({"do": "pid_and_session"})
    assert worker.receive() == {"pid": worker.pid, "session": worker.pid, "cwd": os.getcwd()}


def test_prints_do_not_disturb_the_conversation(worker: WorkerProcess) -> None:
    worker.send({"do": "print"})
    assert worker.receive() == {"stdin": ""}


def test_an_error_arrives_as_its_class(worker: WorkerProcess) -> None:
    worker.send({"do": "mismatch"})
    with pytest.raises(errors.RestoreMismatch, match="3 rows differ") as caught:
        worker.receive()
    assert caught.value.hint == "load it again"
    assert wait_until_gone(worker.pid), "an error ends the worker"


def test_a_database_error_keeps_its_number(worker: WorkerProcess) -> None:
    worker.send({"do": "database_error"})
    with pytest.raises(errors.DatabaseError) as caught:
        worker.receive()
    assert caught.value.number == 1205


@pytest.mark.parametrize("what", ["mismatch", "long_error"])
def test_an_error_reaches_a_parent_that_is_still_writing(worker: WorkerProcess, what: str) -> None:
    worker.send({"do": what})
    with pytest.raises(errors.RestoreMismatch if what == "mismatch" else errors.IntegrityError):
        for _ in range(1000):
            worker.send_bytes(bytes(1 << 20))


def test_a_defect_shows_the_end_of_stderr(worker: WorkerProcess) -> None:
    worker.send({"do": "defect"})
    with pytest.raises(errors.InternalError, match="(?s)ended with status 1.*the reason on stderr") as caught:
        worker.receive()
    assert len(caught.value.message) < 5_000


def test_a_signal_is_named(worker: WorkerProcess) -> None:
    worker.send({"do": "signal"})
    with pytest.raises(errors.InternalError, match="SIGSEGV"):
        worker.receive()
    with pytest.raises(errors.InternalError, match="SIGSEGV"):
        for _ in range(100):
            worker.send_bytes(bytes(1 << 20))


def test_a_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        WorkerProcess("kpbackup.no_such_worker") as process,
        pytest.raises(errors.InternalError, match="no_such_worker.*No module named"),
    ):
        process.receive()


def test_closing_ends_the_worker_and_forbids_more(worker: WorkerProcess) -> None:
    worker.send({"do": "echo"})
    worker.receive()
    worker.close()
    worker.close()
    assert not is_alive(worker.pid)
    with pytest.raises(errors.InternalError, match="already closed"):
        worker.send({"do": "echo"})
    with pytest.raises(errors.InternalError, match="already closed"):
        worker.receive()


def test_kill_from_another_thread_frees_the_one_that_waits(worker: WorkerProcess) -> None:
    worker.send({"do": "sleep"})
    failures: list[BaseException] = []

    def talk() -> None:
        try:
            worker.receive()
        except errors.InternalError as exc:
            failures.append(exc)

    thread = threading.Thread(target=talk)
    thread.start()
    worker.kill()
    worker.kill()
    thread.join(120)
    assert not thread.is_alive()
    assert "ended on request" in str(failures[0])
    assert not is_alive(worker.pid)


def test_kill_frees_a_thread_that_writes(worker: WorkerProcess) -> None:
    worker.send({"do": "sleep"})
    started = threading.Event()
    failures: list[BaseException] = []

    def talk() -> None:
        started.set()
        try:
            while True:
                worker.send_bytes(bytes(1 << 20))
        except errors.InternalError as exc:
            failures.append(exc)

    thread = threading.Thread(target=talk)
    thread.start()
    started.wait(120)
    worker.kill()
    thread.join(120)
    assert not thread.is_alive()
    assert "ended on request" in str(failures[0])


def test_ctrl_c_does_not_reach_the_worker(worker: WorkerProcess) -> None:
    worker.send({"do": "pid_and_session"})
    worker.receive()
    assert os.getpgid(worker.pid) != os.getpgid(0)


def test_a_parent_killed_outright_leaves_no_worker() -> None:
    program = (
        "import os, signal\n"
        "from kpbackup.pipeline.process import WorkerProcess\n"
        f"worker = WorkerProcess({WORKER!r})\n"
        "worker.send({'do': 'echo'}); worker.receive()\n"
        "print(worker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert wait_until_gone(int(done.stdout))


def test_what_is_no_frame_is_an_error(worker: WorkerProcess) -> None:
    # The descriptor behind the conversation is the first the channel opens after its input.
    worker.send({"do": "garbage", "descriptor": 4})
    with pytest.raises(errors.InternalError, match="no message frame"):
        worker.receive()
