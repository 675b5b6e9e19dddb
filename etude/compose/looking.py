"""Before anything runs: look at a file of data, as a recipe for it or as the rows a model would see."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from transformers import PreTrainedTokenizerBase

from etude.catalog import DEFAULT_BASE, TABLES
from etude.compose.artefacts import look_at
from etude.compose.birth import look_at_base
from etude.compose.recipes import read_recipe
from etude.compose.voice import Voice
from etude.data.detect import FIRST, detect
from etude.data.prepare import Prepared, prepare
from etude.data.show import as_json, renderables
from etude.data.sources import parts
from etude.errors import DataError, EtudeError
from etude.lineage.store import Store, open_store
from etude.model.outline import Outline
from etude.recipe.data import Data, Source
from etude.recipe.json_schema import json_schema
from etude.recipe.paths import SCHEMES
from etude.recipe.schema import Recipe
from etude.recipe.write import recipe_for

_MOST_LABELS = 20
_ROLES = {"preference": ("chosen", "rejected"), "kto": ("desirable", "undesirable")}
"""What the rows of a format bring, where no recipe says what is wanted of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """Rows as they would be learnt from. `rich` prints it in colour."""

    prepared: Prepared
    """All of them, with what became of every row."""
    tokenizer: PreTrainedTokenizerBase
    rows: int
    """How many are shown."""

    def to_dict(self) -> dict[str, Any]:
        """The rows shown, lengths and counts as plain values."""
        return as_json(self.prepared, self.tokenizer, self.rows)

    def __rich__(self) -> RenderableType:
        return Group(*renderables(self.prepared, self.tokenizer, self.rows))


def init(data: str | os.PathLike[str], *, base: str | os.PathLike[str] = DEFAULT_BASE, to: str | os.PathLike[str] | None = None) -> str:
    """A commented recipe for a file of data, from its columns and all its rows.

    Args:
        data: a file, folder, glob or `hub:` data set of rows, seen from the folder in which the recipe will lie.
        base: what the recipe is to train.
        to: also write it there, in a folder that is made if need be.

    Raises:
        DataError: the data cannot be read, or is empty.
        EtudeError: `to` is there already.
    """
    data, base, file = os.fspath(data), os.fspath(base), Path(to) if to is not None else None
    if file is not None and file.exists():
        raise EtudeError(f"{file} exists already", "name another file, or move that one away")
    shown, ground = data, base
    if file is not None:
        shown, ground = _seen_from(data, file.parent), _seen_from(base, file.parent) if Path(base).exists() else base
    text = _recipe_text(shown, data, ground)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return text


def _seen_from(path: str, folder: Path) -> str:
    """A recipe's paths begin at its own folder."""
    if path.startswith(SCHEMES) or Path(path).is_absolute():
        return path
    return os.path.relpath(path, folder)


def schema() -> dict[str, Any]:
    """What a recipe can say, as JSON Schema for editors."""
    return json_schema(TABLES)


def _recipe_text(shown: str, path: str, base: str) -> str:
    found, _ = parts(Source(path=path))
    rows = [row.values for part in found for row in part if isinstance(row.values, dict)]
    if not rows:
        raise DataError(f"{path}: no rows", "give a file with at least one row")
    columns = list(dict.fromkeys(str(name) for row in rows[:FIRST] for name in row))
    try:
        format = detect(list(islice(rows, FIRST)), path).format.kind
    except DataError:  # columns of its own: the recipe will say how to render them
        format = None
    label, labels = _label(rows, columns) if format is None else (None, [])
    return recipe_for(shown, base=base, rows=len(rows), columns=columns, format=format, label=label, labels=labels)


def _label(rows: list[dict], columns: list[str]) -> tuple[str | None, list[str]]:
    """The column that looks most like a label: few distinct short values, each often, the last such column winning."""
    for name in reversed(columns):
        values = {str(row.get(name)) for row in rows}
        if 2 <= len(values) <= min(_MOST_LABELS, len(rows) // 3) and max(map(len, values)) <= 40:
            return name, sorted(values)
    return None, []


def data_show(
    path: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] = DEFAULT_BASE,
    stage: str | None = None,
    rows: int = 3,
    voice: Voice | None = None,
    project: Path | None = None,
) -> Preview:
    """A file's or a recipe's rows as a model would see them, and what would be learnt. No weights are read.

    Args:
        path: a file or `hub:` data set of rows, or a recipe (`.yaml`, or a shipped name).
        base: whose tokenizer and template render a file's rows; a recipe names its own.
        stage: which stage of a recipe; by default its first.
        rows: how many to show of each source.

    Raises:
        EtudeError: the recipe, the data or the base cannot be read.
    """
    meant, store, voice = meant_by(os.fspath(path), stage), open_store(project), voice or Voice()
    known = meant.outline(store, voice) or look_at(os.fspath(base), store, voice)
    data = meant.data if meant.recipe else meant.data.model_copy(update={"bad_rows": "drop", "held_out": 0.05})
    read = {"roles": meant.roles, "stop_ids": known.stop_ids, "seed": meant.seed, "project": store.root}
    prepared = prepare(data, known.tokenizer, **read)
    return Preview(prepared, known.tokenizer, rows)


@dataclass(frozen=True, slots=True)
class Meant:
    """What a path to rows or a recipe stands for."""

    data: Data
    """Of a file: all its rows, none held out."""
    roles: tuple[str, ...]
    """What each example brings, by the recipe's objective or the file's format."""
    seed: int
    recipe: Recipe | None
    """None where it is a file."""

    def outline(self, store: Store, voice: Voice) -> Outline | None:
        """How the recipe's base reads text, without its weights, drawn or not; None where it is a file."""
        return None if self.recipe is None else look_at_base(self.recipe, store, voice)


def meant_by(path: str, stage: str | None) -> Meant:
    """A recipe's stage, or a file of rows by itself.

    Raises:
        EtudeError: the recipe or the file cannot be read, or has no such stage.
    """
    if path.endswith((".yaml", ".yml")) or (path.isidentifier() and not Path(path).exists()):
        recipe: Recipe = read_recipe(path).recipe
        if stage is not None and stage not in recipe.stages:
            raise DataError(f"{path} has no stage {stage!r}", f"its stages are {', '.join(recipe.stages)}")
        chosen = recipe.stages[stage or next(iter(recipe.stages))]
        return Meant(chosen.data, chosen.objective.roles, chosen.train.seed, recipe)
    data = Data.model_validate({"sources": [{"path": path}], "held_out": 0})
    found, _ = parts(data.sources[0])
    first = list(islice((row.values for row in found[0] if isinstance(row.values, dict)), FIRST)) if found else []
    return Meant(data, _ROLES.get(detect(first, path).format.kind, ()) if first else (), 0, None)
