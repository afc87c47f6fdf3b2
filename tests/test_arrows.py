"""Imports point one way, lazy ones and those for types alone too, as docs/architecture.md says."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A package imports only from packages of later lines, never from its own line.
ORDER = (
    "__main__",
    "cli",
    "commands",
    "__init__",
    "api",
    "report, sweeping",
    "sparsefinder, training",
    "catalogue, checks, diagnostics",
    "evaluation",
    "results",
    "models, runs",
    "config",
    "attention",
    "entmax",
    "log, mkl_workaround, registry, shapes, system, text",
    "ranks, user_source",
    "positional, tasks",
)
HEIGHT = {name: -i for i, names in enumerate(ORDER) for name in names.split(", ")}


def modules(root: Path) -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    linked = (root / "lcg/tasks", root / "lcg/positional")  # rglob does not enter links
    files = sorted({path for top in (root / "lcg", *linked) for path in top.rglob("*.py")})
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in files]
    return dict(zip((name.removesuffix(".__init__") for name in names), files, strict=True))


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and module of each import of ours, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name if path.name == "__init__.py" else name.rpartition(".")[0]
                parts = here.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [target if target in known else base for target in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            if target.partition(".")[0] == "lcg":
                yield node.lineno, target


def package_of(module: str) -> str:
    """The package of lcg that a module is in."""
    return module.partition(".")[2].partition(".")[0] or "__init__"


def may(name: str, target: str) -> bool:
    """Return True if the one module may import the other."""
    above, below = package_of(name), package_of(target)
    return above == below or HEIGHT[above] > HEIGHT[below]


def violations(root: Path) -> list[str]:
    """`file:line: package imports module` of each import that points the wrong way."""
    known = modules(root)
    return [
        f"{path.relative_to(root)}:{line}: {package_of(name)} imports {target}"
        for name, path in known.items()
        for line, target in imports(name, path, known)
        if not may(name, target)
    ]


def test_every_package_has_its_place():
    found = {package_of(name) for name in modules(ROOT)}
    assert found == HEIGHT.keys()


def test_packages_import_the_packages_below_them():
    assert not (found := violations(ROOT)), "\n".join(found)


def test_no_modules_import_each_other():
    """Also inside a package. Raises CycleError, which names them."""
    known = modules(ROOT)
    graph = {name: {t for _, t in imports(name, path, known)} for name, path in known.items()}
    TopologicalSorter(graph).prepare()


def test_the_map_has_this_order():
    text = " ".join((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split())
    assert f"`{' → '.join(ORDER)}`" in text


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("lcg/evaluation/a.py", "import lcg.training.b", "evaluation imports lcg.training.b"),
        ("lcg/results/a.py", "from lcg import commands", "results imports lcg.commands"),
        ("lcg/models/a.py", "from lcg.runs import c", "models imports lcg.runs"),
        ("lcg/entmax/a.py", "from ..models import c", "entmax imports lcg.models"),
        ("lcg/entmax/__init__.py", "from .. import models", "entmax imports lcg.models"),
        ("lcg/text.py", "from . import models", "text imports lcg.models"),
        ("lcg/config/a.py", "def f():\n    import lcg.cli", "config imports lcg.cli"),
        ("lcg/config/a.py", "if TYPE_CHECKING:\n    import lcg.cli", "config imports lcg.cli"),
        ("lcg/__init__.py", "from lcg.cli import main", "__init__ imports lcg.cli"),
        ("lcg/tasks/a.py", "import lcg.registry", "tasks imports lcg.registry"),
        ("lcg/positional/a.py", "import lcg.shapes", "positional imports lcg.shapes"),
    ],
)
def test_an_arrow_that_points_up_is_found(tmp_path, file, code, said):
    """With four packages: `from lcg import x` imports one only where there is an x."""
    for empty in ("training/b", "commands/__init__", "models/__init__", "runs/__init__"):
        path = tmp_path / "lcg" / f"{empty}.py"
        path.parent.mkdir(parents=True)
        path.touch()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{code}\n")
    assert violations(tmp_path) == [f"{file}:{1 + code.count(chr(10))}: {said}"]


def test_arrows_down_are_none(tmp_path):
    path = tmp_path / "lcg" / "training" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch\nimport lcg.tasks.copy\nfrom lcg.training import b\nimport lcg.text\n"
    )
    assert violations(tmp_path) == []
