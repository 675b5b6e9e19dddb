"""Run a recipe: its stages in the order of their parents, each once. Begin reading here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude import catalog
from etude.compose.begun import Begun, Setting, begin, begin_on, learning_rate, length
from etude.compose.birth import base_of
from etude.compose.prerequisites import StandIn, artefact_name, in_order, made_here, wrong_models
from etude.compose.processes import first_alone, leads, together
from etude.compose.stages import Finished, run_stage
from etude.compose.voice import Voice
from etude.core import ranks
from etude.errors import RecipeError
from etude.lineage.record import Record
from etude.lineage.store import open_store
from etude.model.device import best_device, use_threads
from etude.recipe.load import Loaded, load


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run left behind."""

    stages: dict[str, Finished]
    """By the stage's name, in the order in which they ran."""
    finished: bool
    """False where it was asked to stop; the same call goes on from there."""


def read_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded:
    """A recipe file, or the name of one that comes with etude, with overrides such as `stages.s.train.learning_rate=1e-4`.

    Raises:
        RecipeError: every mistake at once.
    """
    return load(path, overrides, tables=catalog.TABLES)


def run(
    recipe: str | os.PathLike[str] | Loaded, overrides: Sequence[str] = (), *, voice: Voice | None = None, project: Path | None = None
) -> RunResult:
    """Run a recipe to its end. Stages whose inputs have not changed are not run again; an interrupted one goes on.

    Args:
        recipe: a file, a shipped name, or what `read_recipe` returned.
        overrides: as `read_recipe` takes them; what it returned takes no more.
        project: where `.etude` is looked for, upwards; by default the current directory.

    Raises:
        EtudeError: what is wrong, where, and what to do about it.
    """
    loaded = _loaded(recipe, overrides)
    with together():  # with other processes, where there are any
        return _run(_setting(loaded, voice or Voice(), project), loaded)


def _loaded(recipe: str | os.PathLike[str] | Loaded, overrides: Sequence[str]) -> Loaded:
    if not isinstance(recipe, Loaded):
        return read_recipe(recipe, overrides)
    if overrides:
        raise RecipeError([f"{recipe.path} is read already, so {', '.join(overrides)} would be ignored; give them to `read_recipe`"])
    return recipe


def _run(setting: Setting, loaded: Loaded) -> RunResult:
    voice = setting.voice
    done: dict[str, Finished] = {}
    ahead = _look_ahead(setting)  # whatever can be refused is refused before anything is trained
    while ahead:
        one = ahead.pop(0)  # what a stage has read is let go when it is over
        stage, begun = loaded.recipe.stages[one.name], one.begun
        parent = done[stage.parent].record.reference if stage.parent in done else one.parent
        beside = {name: StandIn(done[made].record.reference, True) for name, made in made_here(loaded.recipe, one.name).items()}
        if (parent, beside) != (one.parent, one.beside):
            with first_alone():
                begun = begin_on(setting, one.name, parent, beside, begun)
        if len(loaded.recipe.stages) > 1:
            voice.heading(f"{begun.artefact}, on {begun.known.parent.reference}")
        finished = run_stage(setting, one.name, begun)
        for note in setting.store.notes:
            voice.say(note)
        if finished is None:
            return RunResult(done, finished=False)
        done[one.name] = finished
    return RunResult(done, finished=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """A stage with its inputs read, before anything is trained."""

    name: str
    begun: Begun
    """Where its parent is yet to be made: as what that comes from would read it."""
    parent: str
    """What it was begun on."""
    parent_made: bool
    beside: dict[str, StandIn]
    """What it was begun with in place of the other models that the recipe makes."""
    found: Record | None
    """Its artefact, if it is there."""


def _look_ahead(setting: Setting) -> list[_Ahead]:
    """Read and check every stage. A model that is yet to be made is stood for by what it comes from, which reads the same tokens."""
    ahead: list[_Ahead] = []
    known: dict[str, str] = {}
    unmade: set[str] = set()
    recipe = setting.recipe
    with first_alone():
        base = base_of(recipe, setting.store, setting.voice)
    for name in in_order(recipe):
        stage = recipe.stages[name]
        parent = known.get(stage.parent, base if stage.parent == "base" else stage.parent)
        parent_made = stage.parent not in unmade
        beside = {model: StandIn(known[other], other not in unmade) for model, other in made_here(recipe, name).items()}
        made = parent_made and all(one.made for one in beside.values())
        start = parent if parent_made else artefact_name(recipe, stage.parent)
        setting.voice.heading(f"{artefact_name(recipe, name)}: {stage.objective.kind}, {stage.adapt.kind}, from {start}")
        with first_alone():  # a base may have to be downloaded or converted
            begun = begin(setting, name, parent, beside)
        # With a model that is yet to be made, it cannot have been made either; the identity with what stands for that is another stage's.
        found = setting.store.find(begun.identity) if made else None
        known[name] = found.reference if found is not None else parent
        unmade |= {name} if found is None else set()
        ahead.append(_Ahead(name, begun, parent, parent_made, beside, found))
    return ahead


def _setting(loaded: Loaded, voice: Voice, project: Path | None) -> Setting:
    """What the stages share, with parents that are neither stages nor artefacts refused before anything runs."""
    voice = voice if leads() else Voice()
    _, threads = use_threads()
    voice.say(threads + (f", {ranks.world()} processes" if ranks.world() > 1 else ""))
    store = open_store(project)
    if wrong := wrong_models(loaded, store):
        raise loaded.wrong(wrong)
    return Setting(loaded.recipe, loaded.mapping, store, best_device(), voice)


@dataclass(frozen=True, slots=True)
class Forecast:
    """One stage, as it would be run."""

    stage: str
    artefact: str
    """What the result would be called."""
    parent: str
    """What it would start from: a base, or an artefact."""
    parent_made: bool
    """False where that is only made by this run, before it."""
    objective: str
    adaptation: str
    finished: str | None
    """The artefact that is there already and would be used; None where the stage would run."""
    steps: int
    examples: int
    """Drawn in all."""
    learning_rate: float
    training_rows: int
    held_out_rows: int
    judged_rows: int
    """Of those, asked of parent and result; 0 where nothing is judged."""
    logical_tokens: int
    """Of the training rows, once."""


def forecast(
    recipe: str | os.PathLike[str] | Loaded, overrides: Sequence[str] = (), *, voice: Voice | None = None, project: Path | None = None
) -> list[Forecast]:
    """What `run` would do of the same arguments: the same beginning, with the data read and rendered, and nothing after it.

    A stage whose parent would only be made by this run is read with the tokenizer of what that parent comes from.
    """
    loaded = _loaded(recipe, overrides)
    setting = _setting(loaded, voice or Voice(), project)
    forecasts: list[Forecast] = []
    for one in _look_ahead(setting):
        stage, begun = loaded.recipe.stages[one.name], one.begun
        examples, steps = length(stage, begun.prepared)
        counts = begun.prepared.counts
        forecasts.append(
            Forecast(
                stage=one.name,
                artefact=begun.artefact,
                parent=one.parent if one.parent_made else artefact_name(loaded.recipe, stage.parent),
                parent_made=one.parent_made,
                objective=stage.objective.kind,
                adaptation=stage.adapt.kind,
                finished=one.found.reference if one.found is not None else None,
                steps=steps,
                examples=examples,
                learning_rate=learning_rate(loaded.recipe, stage),
                training_rows=counts.total("training"),
                held_out_rows=counts.total("held_out"),
                judged_rows=len(begun.trial.held_out) if begun.trial is not None else 0,
                logical_tokens=counts.total("logical_tokens"),
            )
        )
    return forecasts
