"""Which key was meant? By closeness among the keys known there and elsewhere, and by the words of other trainers."""

import difflib
from collections.abc import Iterable

from etude.recipe.document import Node, Path, dotted
from etude.recipe.foreign import FOREIGN, VALUES, Foreign
from etude.recipe.shape import Shape, class_at, keys_everywhere
from etude.recipe.strict import Tables

_OF_A_STAGE = ("parent", "data", "adapt", "objective", "train")


def known_at(shape: Shape, node: Node, tables: Tables) -> list[str]:
    """The keys that may stand in the mapping `node`."""
    found = class_at(shape, node, tables)
    return [*(["kind"] if shape.one_of else []), *(found.model_fields if found else [])]


def meant(key: str, above: Path, here: list[str], root: Node, shape: Shape, tables: Tables) -> tuple[str, list[Path]]:
    """What to say of an unknown `key` in the mapping at `above`, and the places that it may have meant; ("", []) without an idea."""
    plain = key.strip().lower().replace("-", "_")
    if plain in here:
        return _question([(*above, plain)], above), [(*above, plain)]
    if (foreign := FOREIGN.get(plain)) is None:
        elsewhere = [_at(path, above, root) for path, _ in keys_everywhere(shape, tables) if path[-1] == plain]
        near = [(*above, name) for name in difflib.get_close_matches(plain, here, 1, 0.7)]
        if found := _nearest([*near, *elsewhere], above):
            return _question(found, above), found
        foreign = FOREIGN.get(next(iter(difflib.get_close_matches(plain, FOREIGN, 1, 0.85)), ""))
    if foreign:
        return _of_foreign(foreign, above, root)
    names: dict[str, tuple[str, ...]] = {}
    for path, _ in keys_everywhere(shape, tables):
        names.setdefault(path[-1], path)
    found: list[Path] = [_at(names[name], above, root) for name in difflib.get_close_matches(plain, names, 1, 0.75)]
    return (_question(found, above), found) if found else (f"known here: {', '.join(here)}" if here else "", [])


def _nearest(paths: list[Path], above: Path) -> list[Path]:
    """Those that share most of the way with `above`, three at most."""
    shared = {path: next((step for step, pair in enumerate(zip(path, above)) if pair[0] != pair[1]), len(above)) for path in paths}
    return [path for path in shared if shared[path] == max(shared.values())][:3]


def _of_foreign(foreign: Foreign, above: Path, root: Node) -> tuple[str, list[Path]]:
    if not foreign.ours:
        return f"leave it out: {foreign.note}", []
    path = tuple(foreign.ours.split("."))
    found = _at(("stages", "*", *path) if path[0] in _OF_A_STAGE else path, above, root)
    return _question([found], above) + (f" ({foreign.note})" if foreign.note else ""), [found]


def _at(pattern: tuple[str, ...], above: Path, root: Node) -> Path:
    """A path with its `*` filled: the stage one stands in, or the only one; the first of a list."""
    stages = root.inside.get("stages")
    names = list(stages.inside) if stages else []
    stage = above[1] if len(above) > 1 and above[0] == "stages" else names[0] if len(names) == 1 else "<stage>"
    return tuple(stage if index == 1 and pattern[0] == "stages" else 0 if part == "*" else part for index, part in enumerate(pattern))


def _question(paths: list[Path], above: Path) -> str:
    return "did you mean " + " or ".join(f"`{path[-1] if path[:-1] == above else dotted(path)}`" for path in paths) + "?"


def choice(value: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for a word that is none of the known ones, or nothing."""
    known = list(known)
    plain = value.strip().lower()
    if (ours := VALUES.get(plain)) in known:
        return f"; did you mean `{ours}`?"
    near = difflib.get_close_matches(plain.replace("_", "-"), known, 1, 0.6)
    return f"; did you mean `{near[0]}`?" if near else ""
