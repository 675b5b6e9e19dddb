"""A stage before anything is computed: its parent opened, its batches' layout asked for, its data read, its identity known."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from etude.adaptation.contract import Adaptation
from etude.compose.artefacts import Opened, open_model
from etude.compose.voice import Voice
from etude.data.prepare import Prepared, prepare
from etude.errors import ModelError
from etude.lineage.fingerprint import stage_identity
from etude.lineage.store import Store
from etude.model.device import choose_dtype
from etude.model.probe import Layout, choose_layout
from etude.objective.contract import Objective
from etude.recipe.schema import Recipe, Stage


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What the stages of one run share."""

    recipe: Recipe
    mapping: dict[str, Any]
    """The recipe as a record keeps it."""
    store: Store
    device: torch.device
    voice: Voice


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A stage with its inputs read, before anything is computed."""

    opened: Opened
    layout: Layout
    prepared: Prepared
    dtype: torch.dtype
    artefact: str
    identity: str


def begin(setting: Setting, name: str, parent: str) -> Begun:
    """Open the parent, ask it how its batches are laid out, read the data: all that a stage's identity depends on."""
    stage, voice = setting.recipe.stages[name], setting.voice
    adaptation: Adaptation = stage.adapt
    objective: Objective = stage.objective
    dtype, why = choose_dtype(stage.train.dtype, setting.device)
    voice.say(f"computes in {why}")
    held = torch.float32 if adaptation.holds_masters else dtype
    opened = open_model(parent, setting.store, dtype=held, device=setting.device, voice=voice, merge=True)
    layout = choose_layout(opened.model)
    if layout.note:
        voice.say(layout.note)
    _check_context(stage, opened, layout)
    prepared = prepare(stage.data, opened.tokenizer, roles=objective.roles, stop_ids=opened.stop_ids, seed=stage.train.seed)
    for line in prepared.counts.lines():
        voice.say(line)
    section = setting.mapping["stages"][name]
    section = section | {"train": section["train"] | {"dtype": str(dtype)}}
    identity = stage_identity(opened.parent.fingerprint, prepared.fingerprint, section)
    return Begun(opened, layout, prepared, dtype, artefact_name(setting.recipe, name), identity)


def length(stage: Stage, prepared: Prepared) -> tuple[int, int]:
    """How many examples a stage draws in all, and in how many steps; the last step takes what is left."""
    train, count = stage.train, sum(len(examples) for _, examples in prepared.train)
    drawn = train.steps * train.examples_per_step if train.steps else max(1, round(train.epochs * count))
    return drawn, math.ceil(drawn / train.examples_per_step)


def artefact_name(recipe: Recipe, stage: str) -> str:
    """What a stage's result is called."""
    return recipe.name if len(recipe.stages) == 1 else f"{recipe.name}-{stage}"


def _check_context(stage: Stage, opened: Opened, layout: Layout) -> None:
    """Positions the model has never been told of, or whose rotation would depend on the neighbours, are refused before any work."""
    most = getattr(opened.model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and stage.data.context > most:
        raise ModelError(f"data.context is {stage.data.context}, but {opened.parent.reference} knows {most} positions", f"at most {most}")
    if layout.longest is not None and stage.data.context > layout.longest:
        raise ModelError(
            f"data.context is {stage.data.context}: beyond {layout.longest} tokens a path's rotation would depend on its neighbours",
            f"set data.context to at most {layout.longest}",
        )
