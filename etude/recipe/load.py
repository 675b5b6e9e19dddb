"""From a file and a few overrides to a recipe that can be run, or to everything that is wrong with it at once."""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from etude.errors import RecipeError
from etude.recipe.document import Node, Place, Problems, read
from etude.recipe.document import Path as KeyPath
from etude.recipe.merge import merged, overridden
from etude.recipe.paths import absolute
from etude.recipe.problems import explain, plainly
from etude.recipe.references import resolved
from etude.recipe.schema import Recipe
from etude.recipe.shape import Shape, spelled_out, transform
from etude.recipe.strict import Strict, Tables

Model = TypeVar("Model", bound=Strict)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """A recipe, and what a record keeps of it."""

    recipe: Model
    """What is to be done."""
    mapping: dict[str, Any]
    """The same as plain JSON values: files merged, references and paths resolved, every default written out. It loads again."""
    path: Path
    """The file that it came from."""
    root: Node = field(repr=False, compare=False)
    """What was written, each value with its place."""

    def wrong(self, what: Mapping[KeyPath, str]) -> RecipeError:
        """An error for what can only be found out later, at the places of the keys that it is about; of an unwritten one, above it."""
        problems = Problems()
        for path, said in what.items():
            node = self.root
            for key in path:
                node = node.inside.get(key, node)
            problems.add(node.place, path, said)
        return RecipeError(problems.lines())


def load(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, tables: Tables) -> Loaded[Recipe]:
    """Reads a recipe; the arguments are those of `load_as`."""
    return load_as(Recipe, path, overrides, tables=tables)


def load_as(model: type[Model], path: str | os.PathLike[str], overrides: Sequence[str] = (), *, tables: Tables) -> Loaded[Model]:
    """Reads a recipe of any kind.

    Args:
        model: what it can say.
        path: a file, or the bare name of a recipe that comes with the package (no suffix, no slash).
        overrides: `path.to.key=value`, later ones last; relative paths in them begin at the current folder.
        tables: `etude.catalog.TABLES`.

    Raises:
        RecipeError: with every problem found, each with its file, line and column (or `override`).
    """
    problems, shape = Problems(), Shape(model=model)
    name = os.fspath(path)
    file = _file(name, Place(name, 1, 1, ""), "", problems)
    root = _with_parents(file, [], shape, tables, problems) if file is not None else None
    if file is None or root is None:
        raise RecipeError(problems.lines())
    for override in overrides:
        root = overridden(root, override, os.getcwd(), shape, tables, problems)
    root = transform(resolved(root, problems), shape, tables, spelled_out)
    root = transform(root, shape, tables, absolute(problems))
    recipe = _validated(model, root, tables, problems)
    if recipe is None or problems.found:
        raise RecipeError(problems.lines())
    return Loaded(recipe, recipe.model_dump(mode="json"), Path(file), root)


def _validated(model: type[Model], root: Node, tables: Tables, problems: Problems) -> Model | None:
    try:
        # As JSON, strictly: a text is no number and a number no truth value, while a list may become a tuple.
        return model.model_validate_json(json.dumps(root.plain()), strict=True, context={"tables": tables})
    except ValidationError as error:
        explain(error, root, Shape(model=model), tables, problems)
    return None


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = files("etude").joinpath("recipes")
    found = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml")] if folder.is_dir() else []
    return {path.stem: path for path in sorted(found)}


def _with_parents(shown: str, chain: list[str], shape: Shape, tables: Tables, problems: Problems) -> Node | None:
    """The file at `shown`, laid on those that it extends; None where nothing can be made of it. `chain` led here."""
    folder = os.path.dirname(os.path.abspath(shown))
    if (text := _text(shown, problems)) is None or (root := read(text, shown, folder, problems)) is None:
        return None
    if not isinstance(root.value, dict):
        problems.add(root.place, (), f"a recipe is a mapping with {_essentials(shape)}; this is {plainly(root.value)}")
        return None
    entries = dict(root.value)
    extends = entries.pop("extends", None)
    root = transform(replace(root, value=entries), shape, tables, spelled_out)
    under: Node | None = None
    for name, place in _named(extends, problems):
        file = _file(name, place, os.path.dirname(shown), problems)
        if file is None:
            problems.partial = True
            continue
        steps = [*chain, os.path.realpath(shown)]
        if os.path.realpath(file) in steps:
            circle = [*steps[steps.index(os.path.realpath(file)) :], os.path.realpath(file)]
            problems.add(place, ("extends",), f"goes in a circle: {' → '.join(map(os.path.basename, circle))}")
        elif (parent := _with_parents(file, steps, shape, tables, problems)) is not None:
            under = parent if under is None else merged(under, parent, shape, tables)
        else:
            problems.partial = True
    return root if under is None else merged(under, root, shape, tables)


def _essentials(shape: Shape) -> str:
    """The keys that every recipe of this kind has."""
    fields = shape.model.model_fields if shape.model else {}
    return " and ".join(f"`{name}`" for name, field in fields.items() if field.is_required())


def _named(extends: Node | None, problems: Problems) -> list[tuple[str, Place]]:
    """The file names that `extends` holds, and where each stands."""
    found = []
    for node in [] if extends is None else extends.value if isinstance(extends.value, list) else [extends]:
        if isinstance(node.value, str):
            found.append((node.value, node.place))
        elif not node.broken:
            problems.add(node.place, ("extends",), f"expected a file name or a list of them, got {plainly(node.value)}")
    return found


def _text(shown: str, problems: Problems) -> str | None:
    """What the file says; None where it cannot be read as text, which is reported."""
    try:
        raw = Path(shown).read_bytes()
    except (OSError, ValueError) as error:
        why = "is a folder; name the recipe in it" if os.path.isdir(shown) else getattr(error, "strerror", None) or str(error)
        problems.add(Place(shown, 1, 1, ""), (), f"cannot be read: {why}")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problems.add(Place(shown, line, column, ""), (), f"the byte 0x{raw[error.start]:02x} is not UTF-8 text; save the file as UTF-8")
        return None


def _file(name: str, place: Place, folder: str, problems: Problems) -> str | None:
    """The file that `name`, written at `place`, means, as it is shown to people: a shipped recipe, or one relative to `folder`."""
    if name and os.path.basename(name) == name and "." not in name:
        if found := shipped().get(name):
            return str(found)
        near = difflib.get_close_matches(name, shipped(), 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there is {', '.join(shipped()) or 'none'}"
        problems.add(place, (), f"no recipe called {name!r} comes with etude; {hint}; for a file write its suffix, or `./{name}`")
        return None
    return os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
