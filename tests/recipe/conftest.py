"""`write` puts files into a folder of their own; `mistakes` loads what should not load and gives the lines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from recipe_leaves import TABLES

from etude.errors import RecipeError
from etude.recipe.load import load

MINIMAL = "base: some/model\nstages:\n  first:\n    data:\n      sources: rows.jsonl\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes `text` to `name` in the folder that the test runs in."""
    monkeypatch.chdir(tmp_path)

    def put(text: str, name: str = "r.yaml") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return put


@pytest.fixture
def loaded(write: Callable[..., Path]) -> Callable:
    """The recipe that `text` and the overrides say."""

    def read(text: str, *overrides: str):
        write(text)
        return load("r.yaml", overrides, tables=TABLES)

    return read


@pytest.fixture
def mistakes(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """What is wrong with `text` and the overrides."""

    def read(text: str, *overrides: str) -> list[str]:
        write(text)
        with pytest.raises(RecipeError) as error:
            load("r.yaml", overrides, tables=TABLES)
        return error.value.problems

    return read
