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
from etude.compose.replay import with_replay
from etude.compose.reward_models import reward_models
from etude.compose.samples import check_samples
from etude.compose.teaching import look_up_teacher
from etude.compose.trial import Trial, check, set_aside, trial_of
from etude.compose.voice import Voice
from etude.core.sample import Example
from etude.data.prepare import Prepared, prepare
from etude.engine.rollouts import rewarded
from etude.errors import DataError, ModelError, TrainingError
from etude.evaluation.general_text import GeneralText
from etude.lineage.fingerprint import fingerprint_file, stage_identity
from etude.lineage.store import Store
from etude.model.device import choose_dtype
from etude.model.probe import longest_path
from etude.objective.contract import Objective
from etude.recipe.birth import Newborn
from etude.recipe.schema import Recipe, Stage

NEWBORN_RATE = 1e-3
"""Peak rate for random weights where the recipe names none: what models of some tens of millions of parameters are trained with."""


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


def begin(setting: Setting, name: str, parent: str) -> Begun:
    """Look the parent up, read and render the data: all that a stage's identity depends on, and all that can be checked beforehand.

    Raises:
        EtudeError: the parent or the data cannot be used, or the result could not be judged.
    """
    stage, voice, settings = setting.recipe.stages[name], setting.voice, setting.recipe.evaluate
    objective: Objective = stage.objective
    _check_objective(stage)
    _check_placement(stage, setting.device)
    dtype, why = choose_dtype(stage.train.dtype, setting.device)
    voice.say(f"computes in {why}")
    for tracker in stage.train.trackers:
        tracker.library()
    known = look_up(parent, setting.store, voice)
    _check_writes(known)
    _check_context(stage, known)
    check_samples(stage, known.outline)
    rewarding = reward_models(objective, known.outline, setting.store, voice)
    if not objective.writes:
        check_classifier(known.outline.config)
    teacher = look_up_teacher(stage, lambda: base_of(setting.recipe, setting.store, voice), known, setting.store, voice)
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
    identity, named = _identity(stage, known, teacher, prepared, dtype, rewarding), artefact_name(setting.recipe, name)
    return Begun(known, objective, teacher, prepared, looked_at, text, trial, dtype, named, identity, rewarding)


def begin_on(setting: Setting, name: str, parent: str, before: Begun) -> Begun:
    """The same once the parent is made. Where that reads as what it comes from did, what `before` has read is read no second time."""
    known = look_up(parent, setting.store, Voice())
    if known.outline.folder != before.known.outline.folder:  # a whole model, with a tokenizer of its own
        return begin(setting, name, parent)
    identity = _identity(setting.recipe.stages[name], known, before.teacher, before.prepared, before.dtype, before.rewarding)
    return replace(before, known=known, identity=identity)


def _identity(
    stage: Stage, known: Known, teacher: Known | None, prepared: Prepared, dtype: torch.dtype, rewarding: Mapping[str, Known]
) -> str:
    """Without what has its default, so that a key that a later etude adds makes no other stage of this one."""
    section = stage.model_dump(mode="json", exclude_defaults=True)
    section["train"] = {**section.get("train", {}), "dtype": str(dtype)}
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
        section["artefacts"] = [one.parent.fingerprint for one in rewarding.values()]
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
        tokens = sum(len(sample) for _, examples in prepared.train for example in examples for sample in example.samples)
        steps = train.steps or math.ceil((train.tokens or train.epochs * tokens * count / sum(rows)) / train.tokens_per_step)
        return max(1, round(steps * train.tokens_per_step * sum(rows) / tokens)), steps
    drawn = train.steps * train.examples_per_step if train.steps else max(1, round(train.epochs * count))
    return drawn, math.ceil(drawn / train.examples_per_step)


def learning_rate(recipe: Recipe, stage: Stage) -> float:
    """The peak rate: as the recipe says, or what is usual for how the stage adapts; random weights learn faster than tuned ones."""
    usual = NEWBORN_RATE if isinstance(recipe.base, Newborn) and stage.parent == "base" else stage.adapt.default_learning_rate
    return stage.train.learning_rate or usual


def artefact_name(recipe: Recipe, stage: str) -> str:
    """What a stage's result is called."""
    return recipe.name if len(recipe.stages) == 1 else f"{recipe.name}-{stage}"


def _check_objective(stage: Stage) -> None:
    """Answers yet to be written need rewards, and a source's own weight tokens that are weighed."""
    objective: Objective = stage.objective
    sampling = rewarded(objective)
    if sampling is not None and sampling.beside_parent and not stage.adapt.keeps_parent:
        what = f"{objective.kind} weighs how far answers yet to be written are from the parent, which {stage.adapt.kind} changes"
        raise TrainingError(what, "set objective.beta to 0, or adapt by something that can be switched off, such as `lora`")
    if not objective.weighs_tokens and (odd := next((s for s in stage.data.sources if s.loss_weight != 1.0), None)):
        what = f"data.sources: {odd.path} has a loss_weight, and {objective.kind} weighs whole answers, not tokens"
        raise TrainingError(what, "leave it out, or set `weight`: how often its rows come")
    if stage.data.replay is not None and not objective.weighs_tokens:
        what = f"data.replay mixes in rows to be learnt token by token, and {objective.kind} compares or rates whole answers"
        raise TrainingError(what, "leave it out, or replay in a stage of `next-token`")
    if sampling is not None and stage.train.stability is not None:
        what = f"train.stability may go back and pass over rows, and what {objective.kind} learns from is written for each step, once"
        raise TrainingError(what, "leave it out; a gradient that is not finite is refused in any case")
    if sampling is not None and stage.train.early_stopping is not None:
        what = f"train.early_stopping looks at held-out rows, and what {objective.kind} learns from is yet to be written"
        raise TrainingError(what, "leave it out, and look at the reward in the journal")


def _check_writes(known: Known) -> None:
    """What only scores has lost the head that every other stage begins with."""
    if known.outputs is not None and known.outputs[1].at == "leaf":
        what = f"{known.parent.reference} scores text ({known.outputs[0]}) and writes none, so nothing can stand on it"
        raise ModelError(what, "begin at its own parent")


def _check_placement(stage: Stage, device: torch.device) -> None:
    """What comes and goes cannot be trained, nor traced; and where it is copied block by block, never is all of it there."""
    if stage.train.placement.stream is None:
        return
    if stage.adapt.born_of_weights and (device.type != "cpu" or stage.train.placement.stream == "host"):
        what = f"`adapt: {stage.adapt.kind}` begins as something that all weights decide, and streamed they are never all there"
        raise TrainingError(what, "take `lora` or `qlora`, or leave train.placement.stream out")
    if stage.adapt.holds_masters:
        what = f"train.placement.stream is for a base that stays as it is, and `adapt: {stage.adapt.kind}` trains its weights"
        raise TrainingError(what, "take `lora` or `qlora`, or leave train.placement.stream out")
    if stage.train.compile:
        raise TrainingError("train.compile and train.placement.stream exclude each other", "leave one of them out")


def _check_context(stage: Stage, known: Known) -> None:
    """Positions the model has never been told of, or whose rotation would depend on the neighbours, are refused before any work."""
    config, context = known.outline.config, stage.data.context + stage.adapt.virtual_tokens
    behind = f" and {stage.adapt.virtual_tokens} virtual tokens" if stage.adapt.virtual_tokens else ""
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is not None and context > most:
        raise ModelError(
            f"data.context is {stage.data.context}{behind}, but {known.parent.reference} knows {most} positions",
            f"set data.context to at most {most - stage.adapt.virtual_tokens}",
        )
    longest = longest_path(config)
    if longest is not None and context > longest:
        raise ModelError(
            f"data.context is {stage.data.context}{behind}: beyond {longest} tokens a path's rotation would depend on its neighbours",
            f"set data.context to at most {longest - stage.adapt.virtual_tokens}",
        )
