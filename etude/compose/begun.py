"""A stage before any weights are read: its parent known, its data rendered, what it will be asked chosen, its identity settled."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from etude.adaptation.sequence_classifier import check_classifier
from etude.compose.artefacts import Known, look_up
from etude.compose.birth import base_of
from etude.compose.general import general_text_of
from etude.compose.prerequisites import StandIns, artefact_name
from etude.compose.refusals import check_contexts, check_objective, check_placement, check_writes
from etude.compose.replay import with_replay
from etude.compose.reward_models import reward_models
from etude.compose.samples import check_samples
from etude.compose.teaching import look_up_teacher
from etude.compose.trial import Trial, check, set_aside, trial_of
from etude.compose.voice import Voice
from etude.core.sample import Example
from etude.data.prepare import Prepared, prepare
from etude.errors import DataError
from etude.evaluation.general_text import GeneralText
from etude.lineage.fingerprint import fingerprint_file, stage_identity
from etude.lineage.store import Store
from etude.model.device import choose_dtype
from etude.objective.contract import Objective
from etude.recipe.birth import Newborn
from etude.recipe.schema import Recipe, Stage

NEWBORN_RATE = 1e-3
"""Peak rate for random weights where the recipe names none: what models of some tens of millions of parameters are trained with."""
NONE: StandIns = {}


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
    """A stage with its inputs read."""

    known: Known
    """Its parent."""
    objective: Objective
    """As it is for these rows."""
    teacher: Known | None
    """Whom it learns from, where that is another model than its parent."""
    prepared: Prepared
    looked_at: list[Example]
    """Held-out examples that say when to stop; empty where nothing stops early."""
    text: GeneralText | None
    """None where nothing is to be kept, or nothing judged."""
    trial: Trial | None
    """What parent and result will be asked; None where nothing is judged."""
    dtype: torch.dtype
    """Of the computation."""
    artefact: str
    identity: str
    rewarding: dict[str, Known]
    """Artefacts that reward answers, by the names that the recipe has for them."""


def begin(setting: Setting, name: str, parent: str, stand_ins: StandIns = NONE) -> Begun:
    """Look the parent up, read and render the data: all that a stage's identity depends on, and all that can be checked beforehand.

    Args:
        stand_ins: what the names of other models stand for that the recipe itself makes.

    Raises:
        EtudeError: the parent or the data cannot be used, or the result could not be judged.
    """
    stage, voice, settings = setting.recipe.stages[name], setting.voice, setting.recipe.evaluate
    objective: Objective = stage.objective
    check_objective(stage)
    check_placement(stage, setting.device)
    dtype, why = choose_dtype(stage.train.dtype, setting.device)
    voice.say(f"computes in {why}")
    for tracker in stage.train.trackers:
        tracker.library()
    known = look_up(parent, setting.store, voice)
    check_writes(known, "nothing can stand on it", "begin at its own parent")
    check_samples(stage, known.outline)
    rewarding, teacher = _learnt_beside(setting, stage, known, stand_ins, voice)
    if not objective.writes:
        check_classifier(known.outline.config)
    tokenizer, stop_ids = known.outline.tokenizer, known.outline.stop_ids
    project = setting.store.root
    prepared = prepare(stage.data, tokenizer, roles=objective.roles, stop_ids=stop_ids, seed=stage.train.seed, project=project)
    for line in prepared.counts.lines():
        voice.say(line)
    objective = settled(objective, prepared, tokenizer, voice)
    prepared = replace(prepared, train=[(source, objective.arrange(examples)) for source, examples in prepared.train])
    prepared, looked_at = set_aside(prepared, stage.train)
    if looked_at:
        voice.say(f"{len(looked_at):,} held-out examples say when to stop, and are not judged")
    text, trial = None, None
    if settings is not None:
        text = general_text_of(settings) if objective.writes else None
        trial = trial_of(prepared, text, tokenizer, settings, stage.data.context, objective)
        check(trial, settings)
    prepared = with_replay(prepared, stage, trial, [*prepared.held_out, *looked_at], tokenizer, stop_ids, project)
    if prepared.replayed is not None:
        voice.say(prepared.replayed.line)
    identity = _identity(setting.recipe, stage, known, teacher, prepared, dtype, rewarding)
    named = artefact_name(setting.recipe, name)
    return Begun(known, objective, teacher, prepared, looked_at, text, trial, dtype, named, identity, rewarding)


def begin_on(setting: Setting, name: str, parent: str, stand_ins: StandIns, before: Begun) -> Begun:
    """The same once all that it needs is made. Where the parent reads as what it comes from did, `before`'s data is read no second time."""
    known, recipe = look_up(parent, setting.store, Voice()), setting.recipe
    if known.outline.folder != before.known.outline.folder:  # a whole model, with a tokenizer of its own
        return begin(setting, name, parent, stand_ins)
    rewarding, teacher = _learnt_beside(setting, recipe.stages[name], known, stand_ins, Voice())
    identity = _identity(recipe, recipe.stages[name], known, teacher, before.prepared, before.dtype, rewarding)
    return replace(before, known=known, teacher=teacher, rewarding=rewarding, identity=identity)


def _learnt_beside(
    setting: Setting, stage: Stage, known: Known, stand_ins: StandIns, voice: Voice
) -> tuple[dict[str, Known], Known | None]:
    """What rewards answers and who teaches: found, and able to read what this stage will show them, as its parent must be."""
    check_contexts(stage, known, None, {})  # before anything else is looked for
    rewarding = reward_models(stage.objective, known.outline, setting.store, voice, stand_ins)
    base = lambda: base_of(setting.recipe, setting.store, voice)
    teacher = look_up_teacher(stage, base, known, setting.store, voice, stand_ins)
    check_contexts(stage, known, teacher, rewarding)
    return rewarding, teacher


def _identity(
    recipe: Recipe,
    stage: Stage,
    known: Known,
    teacher: Known | None,
    prepared: Prepared,
    dtype: torch.dtype,
    rewarding: Mapping[str, Known],
) -> str:
    """Without what has its default, so that a key that a later etude adds makes no other stage of this one."""
    section = stage.model_dump(mode="json", exclude_defaults=True)
    section["train"] = {**section.get("train", {}), "dtype": str(dtype)}
    if (rate := learning_rate(recipe, stage)) != stage.adapt.default_learning_rate:  # written or not, it is another
        section["train"]["learning_rate"] = rate
    if section["train"].get("optimizer") == {"kind": "adamw"}:  # a default that is a leaf is written out all the same
        del section["train"]["optimizer"]
    section["train"].pop("placement", None)  # where the model lies changes nothing of what it learns
    objective: Objective = stage.objective
    if objective.sampling is not None:  # where answers end decides what is learnt from them
        section["stops"] = sorted(known.outline.stop_ids)
    if objective.files:  # what they say counts, not where they lie
        section["files"] = [_digest(file) for file in objective.files]
        for reward in section["objective"].get("rewards", ()):
            reward.pop("file", None)
    if rewarding:  # what they are counts, not what they are called
        named = [reward.reads_with for reward in objective.sampling.rewards] if objective.sampling is not None else []
        section["artefacts"] = [rewarding[name].parent.fingerprint for name in named if name is not None]
        for reward in section["objective"].get("rewards", ()):
            reward.pop("artefact", None)
    if teacher is not None:  # what it is counts, not what it is called
        section["objective"].pop("teacher")
        section["teacher"] = teacher.parent.fingerprint
    if prepared.replayed is not None:
        section["replayed"] = prepared.replayed.fingerprint
    return stage_identity(known.parent.fingerprint, prepared.fingerprint, section)


def settled(objective: Objective, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, voice: Voice) -> Objective:
    """The objective as it is for the rows of a stage."""
    train = [example for _, examples in prepared.train for example in examples]
    decode = lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    return objective.settle(train, prepared.held_out, decode, voice.say)


def _digest(file: str) -> str:
    """Of a file's bytes."""
    try:
        return fingerprint_file(Path(file))
    except OSError as problem:
        raise DataError(f"{file}: {problem.strerror}", "write it, or name another file") from problem


def length(stage: Stage, prepared: Prepared) -> tuple[int, int]:
    """How many examples a stage draws in all, and in how many steps; the last step takes what is left.

    Where a step is so many tokens, the examples are about as many as hold them.
    """
    train, again = stage.train, prepared.replayed
    rows = [len(examples) for _, examples in prepared.train]
    count = sum(rows) if again is None else sum(rows[:-1]) / (1 - again.share)
    if train.tokens_per_step is not None:
        weights = [source.weight or float(len(examples)) for source, examples in prepared.train]
        sizes = [sum(len(sample) for example in examples for sample in example.samples) for _, examples in prepared.train]
        tokens = sum(weight * size / n for weight, size, n in zip(weights, sizes, rows, strict=True) if n)  # of `sum(weights)` rows drawn
        steps = train.steps or math.ceil((train.tokens or train.epochs * tokens * count / sum(weights)) / train.tokens_per_step)
        return max(1, round(steps * train.tokens_per_step * sum(weights) / tokens)), steps
    drawn = train.steps * train.examples_per_step if train.steps else max(1, round(train.epochs * count))
    return drawn, math.ceil(drawn / train.examples_per_step)


def learning_rate(recipe: Recipe, stage: Stage) -> float:
    """The peak rate: as the recipe says, or what is usual for how the stage adapts; random weights learn faster than tuned ones."""
    usual = NEWBORN_RATE if isinstance(recipe.base, Newborn) and stage.parent == "base" else stage.adapt.default_learning_rate
    return stage.train.learning_rate or usual
