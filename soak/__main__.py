"""`python -m soak [NAME ...]`: runs the parts of the soak one after the other; without names, all of them.

A part is a file `soak/NAME.py` with a `main()`: it reads SECONDS and SEED from the environment, plays, keeps its figures under
docs/evidence, and returns an exit code that is not 0 when something failed.

Exit code 0 when every part ended well, 1 when one did not, 2 for a name that is no part.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_PARTS = ("__main__", "pages")


def parts() -> list[str]:
    files = (path for path in HERE.glob("*.py") if path.stem not in NOT_PARTS)
    return sorted(path.stem for path in files if "\ndef main(" in path.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    wanted = arguments or parts()
    if unknown := sorted(set(wanted) - set(parts())):
        print(f"soak: no part {', '.join(unknown)}; there are {', '.join(parts())}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted:
        print(f"soak: {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"soak.{name}"], cwd=HERE.parent, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"soak: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
