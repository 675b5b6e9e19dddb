"""Before anything runs: look at a file of data, as a recipe for it or as the rows a model would see."""

from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from etude.compose.recipes import read_recipe
from etude.compose.voice import Voice
from etude.data.detect import FIRST, detect
from etude.data.locate import locate
from etude.data.prepare import Prepared, prepare
from etude.data.read import read
from etude.errors import DataError
from etude.lineage.store import open_store
from etude.model.load import load
from etude.recipe.schema import Data, Recipe
from etude.recipe.write import recipe_for

_MOST_LABELS = 20


def recipe_text(path: str, base: str) -> str:
    """A commented recipe for a file of data, from its columns and its first rows.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    files, _ = locate(path)
    rows = [row.values for file in files for row in read(file) if isinstance(row.values, dict)]
    if not rows:
        raise DataError(f"{path}: no rows", "give a file with at least one row")
    columns = list(dict.fromkeys(str(name) for row in rows[:FIRST] for name in row))
    try:
        format = detect(list(islice(rows, FIRST)), path).format.kind
    except DataError:  # columns of its own: the recipe will say how to render them
        format = None
    label, labels = _label(rows, columns) if format is None else (None, [])
    return recipe_for(path, base=base, rows=len(rows), columns=columns, format=format, label=label, labels=labels)


def _label(rows: list[dict], columns: list[str]) -> tuple[str | None, list[str]]:
    """The column that looks most like a label: few distinct short values, each often, the last such column winning."""
    for name in reversed(columns):
        values = {str(row.get(name)) for row in rows}
        if 2 <= len(values) <= min(_MOST_LABELS, len(rows) // 3) and max(map(len, values)) <= 40:
            return name, sorted(values)
    return None, []


def prepared_of(path: str, base: str, stage: str | None = None, *, voice: Voice | None = None) -> tuple[Prepared, PreTrainedTokenizerBase]:
    """A file's or a recipe's rows as they would be learnt from.

    Args:
        path: a file of rows, or a recipe (`.yaml`, or a shipped name).
        stage: which stage of a recipe; by default its first.
    """
    if path.endswith((".yaml", ".yml")) or (path.isidentifier() and not Path(path).exists()):
        recipe: Recipe = read_recipe(path).recipe
        if stage is not None and stage not in recipe.stages:
            raise DataError(f"{path} has no stage {stage!r}", f"its stages are {', '.join(recipe.stages)}")
        chosen = recipe.stages[stage or next(iter(recipe.stages))]
        data, roles, seed, base = chosen.data, chosen.objective.roles, chosen.train.seed, recipe.base
    else:
        data, roles, seed = Data.model_validate({"sources": [{"path": path}], "bad_rows": "drop"}), (), 0
        files, _ = locate(path)
        first = list(islice((row.values for row in read(files[0]) if isinstance(row.values, dict)), FIRST))
        if first and detect(first, path).format.kind == "preference":
            roles = ("chosen", "rejected")
    voice = voice or Voice()
    loaded = load(base, dtype=torch.float32, device=torch.device("cpu"), bases=open_store().bases, say=voice.say)
    return prepare(data, loaded.tokenizer, roles=roles, stop_ids=loaded.stop_ids, seed=seed), loaded.tokenizer
