"""No two modules of the package need each other, not even inside functions: each can be understood after those it names."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kpbackup"


def imported(path: Path, known: set[str]) -> set[str]:
    """The modules of the package that this one imports, anywhere but for types alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                 for inner in ast.walk(node)}  # fmt: skip
    for node in (node for node in ast.walk(tree) if node not in for_types):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inside or ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def test_no_modules_import_each_other() -> None:
    paths = {str(path.relative_to(ROOT)).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path
             for path in PACKAGE.rglob("*.py")}  # fmt: skip
    graph = {name: imported(path, set(paths)) - {name} for name, path in paths.items()}
    assert graph["kpbackup.pipeline.age_texts"] >= {"kpbackup.pipeline.age_hybrid", "kpbackup.pipeline.age_keys"}
    TopologicalSorter(graph).prepare()  # raises CycleError and names them
