"""What goes wrong with a directory: limits, permissions, killed writers, a lock nobody gives back."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.storage.local import TEMPORARY, LocalBackend

NOBODY = 65_534


def run(script: str, directory: Path, *, as_nobody: bool = False) -> str:
    """What a script prints, run as another process; `store` is the backend."""
    prelude = "import os, resource, sys\nfrom pathlib import Path\n"
    prelude += "from kpbackup import errors\nfrom kpbackup.storage.local import LocalBackend\n"
    if as_nobody and os.getuid() == 0:  # nothing is forbidden to root; after the imports, which nobody may not read
        prelude += f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    prelude += "store = LocalBackend(Path(sys.argv[1]))\n"
    argv = [sys.executable, "-c", prelude + script, str(directory)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout


FULL = """
store.put("old", [b"old"])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for chunks in ([b"x" * 2_000_000], [b"x" * 1000] * 2000):
    try:
        store.put("old", chunks)
    except errors.LocalIOError as exc:
        print(exc.message, "|", exc.hint)
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    lines = run(FULL, tmp_path).splitlines()
    assert len(lines) == 2 and all("/old: File too large | " in line and "ulimit" in line for line in lines)
    store = LocalBackend(tmp_path)
    assert store.read("old") == b"old" and len(list(store.list(""))) == 1
    assert [path.name for path in (tmp_path / TEMPORARY).iterdir()] == ["lock"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_a_full_disk(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        store = LocalBackend(tmp_path / "repository")
        with pytest.raises(errors.LocalIOError, match="No space left") as caught:
            store.put("o", [b"x" * 3_000_000])
        assert "disk is full" in caught.value.hint and list(store.list("")) == []
        store.put("o", [b"x" * 300_000])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


FORBIDDEN = """
writes = [lambda: store.put("o", [b""]), lambda: store.put_if_absent("o", b""), lambda: store.delete("old")]
for call in [*writes, lambda: store.read("old"), lambda: store.head("old"), lambda: list(store.list(""))]:
    try:
        call()
    except errors.LocalIOError as exc:
        print(exc.message, "|", exc.hint)
"""


def test_a_directory_that_may_not_be_touched(tmp_path: Path) -> None:
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    store = tmp_path / "repository"
    LocalBackend(store).put("old", [b"old"])
    store.chmod(0)
    lines = run(FORBIDDEN, store, as_nobody=True).splitlines()
    store.chmod(0o755)
    assert len(lines) == 6 and all("Permission denied | give the user" in line for line in lines), lines


def test_keys_cannot_be_directories_of_others(tmp_path: Path) -> None:
    store = LocalBackend(tmp_path)
    store.put("a/b", [b"x"])
    with pytest.raises(errors.LocalIOError) as caught:
        store.put("a", [b"x"])
    assert "directory" in caught.value.hint
    with pytest.raises(errors.LocalIOError):
        store.put("a/b/c", [b"x"])
    assert [info.key for info in store.list("")] == ["a/b"]


def test_the_temporary_directory_is_no_place_for_objects(tmp_path: Path) -> None:
    store = LocalBackend(tmp_path)
    with pytest.raises(errors.StorageError, match="reserved"):
        store.put(f"{TEMPORARY}/o", [b"x"])


def test_a_killed_writer_leaves_nothing_to_see_and_is_tidied_up_after(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom kpbackup.storage.local import LocalBackend\n"
        "def chunks():\n    yield b'x' * 100_000\n    print('ready', flush=True)\n    sys.stdin.read()\n"
        "LocalBackend(Path(sys.argv[1])).put('o', chunks())\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        (leftover,) = [path for path in (tmp_path / TEMPORARY).iterdir() if path.name != "lock"]
        an_age_ago = time.time() - 7200
        os.utime(leftover, (an_age_ago, an_age_ago))
        LocalBackend(tmp_path).put("other", [b""])
        assert leftover.exists(), "its writer is alive"
        os.kill(writer.pid, signal.SIGKILL)
    assert [info.key for info in LocalBackend(tmp_path).list("")] == ["other"]
    LocalBackend(tmp_path).put("other", [b""])
    assert not leftover.exists()


def test_a_lock_nobody_gives_back_is_reported(tmp_path: Path) -> None:
    store = LocalBackend(tmp_path, lock_wait_s=0.2)
    store.put("o", [b"1"])
    with (tmp_path / TEMPORARY / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.StorageError, match="another process has held"):
            store.put("o", [b"2"])
    store.put("o", [b"3"])
    assert store.read("o") == b"3"
