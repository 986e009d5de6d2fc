"""A bandwidth limit shared by several takers, on a clock of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.pipeline import pace

RATE = 1000.0


class World:
    """A clock, and takers that each wait on their own: `done[n]` is when taker n has waited long enough."""

    def __init__(self, path: str, takers: int) -> None:
        self.now = 100.0
        self.done = [self.now] * takers
        self.paces = [
            pace.Pace(path, bytes_per_second=RATE, clock=lambda: self.now, sleep=lambda s, n=n: self.wait(n, s))  # type: ignore[misc]
            for n in range(takers)
        ]

    def wait(self, taker: int, seconds: float) -> None:
        self.done[taker] = self.now + seconds

    def count(self, taker: int, size_bytes: int) -> None:
        """The taker counts as soon as it is free again."""
        self.now = max(self.now, self.done[taker])
        self.paces[taker].count(size_bytes)

    def close(self) -> None:
        for one in self.paces:
            one.close()


@given(takes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5000)), min_size=1, max_size=40))
def test_together_no_more_than_the_limit(takes: list[tuple[int, int]]) -> None:
    with pace.shared() as path:
        world = World(path, 3)
        began, counted = world.now, 0
        for taker, size in takes:
            world.count(taker, size)
            counted += size
            assert max(world.done) - began >= counted / RATE - 1e-6
        world.close()


@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_a_lone_taker_has_the_whole_limit(sizes: list[int]) -> None:
    with pace.shared() as path:
        world = World(path, 4)
        for size in sizes:
            world.count(2, size)
        assert world.done[2] - 100.0 == pytest.approx(sum(sizes) / RATE)
        world.close()


def test_a_pause_is_not_saved_up_for_a_burst() -> None:
    with pace.shared() as path:
        world = World(path, 1)
        world.count(0, 1000)
        world.now += 3600
        world.count(0, 1000)
        assert world.done[0] == pytest.approx(world.now + 1)
        world.close()


def test_nothing_is_left_and_a_missing_file_is_told() -> None:
    with pace.shared() as path:
        assert Path(path).exists()
    assert not Path(path).exists()
    with pytest.raises(errors.LocalIOError, match="bandwidth limit"):
        pace.Pace(path, bytes_per_second=1)


_HOLDING = """
import sys
from kpbackup.pipeline import pace
with pace.shared() as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        path = holder.stdout.readline().strip()
        taker = pace.Pace(path, bytes_per_second=1e9)  # as another process of the same account
        taker.count(1000)
        holder.kill()
    taker.count(1000)  # goes on with what it has open
    taker.close()
    assert not Path(path).exists() and not list(tmp_path.iterdir())
