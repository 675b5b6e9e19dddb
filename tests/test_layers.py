"""The house as it was drawn: storeys, empty doors, no cycles, modules that can be read at one sitting, no surprises at import."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import etude

PACKAGE = Path(etude.__file__).parent
STOREYS = (
    ("recipe", "lineage", "catalog"),
    ("core",),
    ("data", "model"),
    ("adaptation", "objective"),
    ("engine",),
    ("planning", "evaluation", "serving"),
    ("compose",),
    ("advice", "release"),
    ("cli", "studio"),
)
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
EVERYWHERE = {"errors"}
DOORS = {"__init__", "__main__"}
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
VAGUE = {"util", "utils", "helper", "helpers", "manager", "base", "misc", "common", "tools"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> list[tuple[ast.stmt, str]]:
    """Every import of a module, wherever in it, by the full name of what is imported."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports by full name"
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [(node, name if name in MODULES or f"{name}.__init__" in MODULES else str(node.module)) for name in whole]
    return found


def ours(path: Path) -> list[tuple[ast.stmt, str]]:
    return [(node, name) for node, name in imports(path) if name.split(".")[0] == "etude"]


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def test_every_room_is_in_the_design():
    assert {room(module) for module in MODULES} <= LEVEL.keys() | EVERYWHERE | DOORS


def test_imports_go_strictly_downwards():
    upwards = []
    for module, path in MODULES.items():
        here = room(module)
        if here in DOORS:
            continue
        for node, name in ours(path):
            there = room(name)
            if there in EVERYWHERE or there == here or (not there and here in STOREYS[-1]):
                continue  # errors are everybody's, and the package's own door is for whoever stands at the top
            if here in EVERYWHERE or there not in LEVEL or LEVEL[there] >= LEVEL[here]:
                upwards.append(f"{module}:{node.lineno} imports {name}")
    assert not upwards


def test_no_module_reaches_itself():
    def at_import(path: Path) -> set[str]:
        top = {id(node) for node in tree(path).body}
        return {name for node, name in ours(path) if id(node) in top}

    edges = {module: at_import(path) & MODULES.keys() for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in edges[module]:
                visit(other, (*way, module))
            done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_module(module):
    path = MODULES[module]
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        assert path.parent == PACKAGE or not text, "a door holds nothing"
        return
    lines = text.splitlines()
    assert len(lines) <= 300, "a module can be read at one sitting"
    assert not VAGUE & set(re.split(r"[._]", module)), "named by what it answers"
    explained = ast.get_docstring(tree(path))
    assert explained, "says which question it answers"
    assert len(explained.splitlines()) <= 8
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    names = {name.split(".")[0] for _, name in imports(path)}
    assert not names & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    assert "torch.load(" not in text and "torch.save(" not in text, "no pickle"


def test_imports_within_functions_are_marked():
    """Only where a heavy library would slow every start; the mark is what ruff reads too."""
    unmarked = []
    for module, path in MODULES.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        for function in ast.walk(tree(path)):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
                unmarked += [f"{module}:{node.lineno}" for node in inner if "noqa: PLC0415" not in lines[node.lineno - 1]]
    assert not unmarked


def public(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")


@pytest.mark.parametrize("storey", range(len(STOREYS)))
def test_public_functions_and_classes_are_explained(storey):
    silent = []
    for module, path in MODULES.items():
        if LEVEL.get(room(module)) == storey:
            silent += [f"{module}.{node.name}" for node in tree(path).body if public(node) and not ast.get_docstring(node)]
    assert not silent
