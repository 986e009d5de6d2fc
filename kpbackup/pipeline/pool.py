"""A pool of worker processes that carry out tasks, one conversation per worker and thread.

A task is a function of a worker; it talks to it until the work is done and may return further tasks (an index to
build once a table is loaded, say). The first error stops everybody. Only the parent touches the store, so store
credentials stay in one process and memory does not grow with the data. When the parent dies, the workers' stdin closes
and they end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from kpbackup.pipeline.process import WorkerProcess

JOIN_S = 0.2  # how often the waiting thread looks up, so that Ctrl-C is seen

Task = Callable[[WorkerProcess], "Sequence[Task]"]


class _Board:
    """Tasks that wait, and how many are under way; shared by the threads of one run."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(tasks)
        self._under_way = 0
        self.failure: BaseException | None = None

    def take(self) -> Task | None:
        """The next task; None when nothing is left to come, or something failed."""
        with self._changed:
            while not self._waiting and self._under_way and self.failure is None:
                self._changed.wait()
            if not self._waiting or self.failure is not None:
                return None
            self._under_way += 1
            return self._waiting.popleft()

    def finish(self, following: Sequence[Task]) -> None:
        with self._changed:
            self._waiting.extend(following)
            self._under_way -= 1
            self._changed.notify_all()

    def fail(self, exc: BaseException) -> None:
        with self._changed:
            self.failure = self.failure or exc
            self._under_way -= 1
            self._changed.notify_all()


class WorkerPool:
    """Workers of one module, given `start_message`; their answer is awaited when they are first needed, so that they
    start while the caller does something else. Leaving the context ends them."""

    def __init__(self, module: str, start_message: dict[str, Any], *, workers: int) -> None:
        self.workers: list[WorkerProcess] = []
        self._are_ready = False
        try:
            for _ in range(workers):
                self.workers.append(WorkerProcess(module))
            for worker in self.workers:
                worker.send(start_message)
        except BaseException:
            self.kill()
            raise

    def _await_ready(self) -> None:
        if not self._are_ready:
            for worker in self.workers:
                worker.receive()
            self._are_ready = True

    def ask_all(self, message: dict[str, Any]) -> None:
        """Sends every worker the same message and waits for all answers."""
        self._await_ready()
        for worker in self.workers:
            worker.send(message)
        for worker in self.workers:
            worker.receive()

    def run(self, tasks: Iterable[Task], *, check: Callable[[], None] = lambda: None) -> None:
        """Carries out all tasks and those they return; `check` is called several times a second and may raise to end it.

        Raises the first error a task or `check` had, after every thread has stopped.
        """
        self._await_ready()
        board = _Board(tasks)
        threads = [threading.Thread(target=self._work, args=(worker, board), daemon=True) for worker in self.workers]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(timeout=JOIN_S)
                check()
        except BaseException:
            self.kill()
            for thread in threads:
                thread.join()
            raise
        if board.failure is not None:
            raise board.failure

    def _work(self, worker: WorkerProcess, board: _Board) -> None:
        while (task := board.take()) is not None:
            try:
                following = task(worker)
            except BaseException as exc:  # handed to the thread that called run(), which raises it
                board.fail(exc)
                self.kill()  # the others' answers are no longer wanted
                return
            board.finish(following)

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
            return
        for worker in self.workers:
            worker.close()
