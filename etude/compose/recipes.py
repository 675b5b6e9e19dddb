"""Run a recipe: its stages in the order of their parents, each once. Begin reading here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude import catalog
from etude.compose.stages import Finished, Setting, artefact_name, run_stage
from etude.compose.voice import Voice
from etude.lineage.store import open_store
from etude.model.device import best_device, use_threads
from etude.recipe.load import Loaded, load
from etude.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run left behind."""

    stages: dict[str, Finished]
    """By the stage's name, in the order in which they ran."""
    finished: bool
    """False where it was asked to stop; the same call goes on from there."""


def read_recipe(path: str, overrides: Sequence[str] = ()) -> Loaded:
    """A recipe file, or the name of one that comes with etude, with overrides such as `stages.s.train.learning_rate=1e-4`.

    Raises:
        RecipeError: every mistake at once.
    """
    return load(path, overrides, tables=catalog.TABLES)


def run(recipe: str | Loaded, overrides: Sequence[str] = (), *, voice: Voice | None = None, project: Path | None = None) -> RunResult:
    """Run a recipe to its end. Stages whose inputs have not changed are not run again; an interrupted one goes on.

    Args:
        recipe: a file, a shipped name, or what `read_recipe` returned.
        project: where `.etude` is looked for, upwards; by default the current directory.

    Raises:
        EtudeError: what is wrong, where, and what to do about it.
    """
    loaded = read_recipe(recipe, overrides) if isinstance(recipe, str) else recipe
    voice = voice or Voice()
    _, threads = use_threads()
    voice.say(threads)
    setting = Setting(loaded.recipe, loaded.mapping, open_store(project), best_device(), voice)
    done: dict[str, Finished] = {}
    for name in in_order(loaded.recipe):
        stage = loaded.recipe.stages[name]
        parent = loaded.recipe.base if stage.parent == "base" else stage.parent
        if parent in done:
            parent = done[parent].record.reference
        voice.heading(f"{artefact_name(loaded.recipe, name)}: {stage.objective.kind}, {stage.adapt.kind}, from {parent}")
        finished = run_stage(setting, name, parent)
        for note in setting.store.notes:
            voice.say(note)
        if finished is None:
            return RunResult(done, finished=False)
        done[name] = finished
    return RunResult(done, finished=True)


def in_order(recipe: Recipe) -> list[str]:
    """Stages, parents before children, otherwise as written."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in recipe.stages and name not in order:
            add(recipe.stages[name].parent)
            order.append(name)

    for name in recipe.stages:
        add(name)
    return order
