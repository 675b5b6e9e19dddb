"""What is refused before any work: a stage that cannot learn so, lie there, begin on that, or read as far as it is shown."""

from collections.abc import Callable, Mapping

import torch

from etude.compose.artefacts import Known
from etude.engine.rollouts import rewarded
from etude.errors import ModelError, TrainingError
from etude.model.probe import longest_path
from etude.objective.contract import Objective
from etude.recipe.schema import Stage


def check_objective(stage: Stage) -> None:
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
    ended = stage.train.steps is not None or stage.train.tokens is not None
    if stage.data.replay is not None and stage.data.replay.answers and stage.train.tokens_per_step is not None and not ended:
        what = "train.epochs cannot be counted in tokens_per_step: how long the parent's answers are (data.replay) is not known before"
        raise TrainingError(what, "say the end by `train.steps` or `train.tokens`, or count steps by `train.examples_per_step`")
    if sampling is not None and stage.train.stability is not None:
        what = f"train.stability may go back and pass over rows, and what {objective.kind} learns from is written for each step, once"
        raise TrainingError(what, "leave it out; a gradient that is not finite is refused in any case")
    if sampling is not None and stage.train.early_stopping is not None:
        what = f"train.early_stopping looks at held-out rows, and what {objective.kind} learns from is yet to be written"
        raise TrainingError(what, "leave it out, and look at the reward in the journal")


def check_placement(stage: Stage, device: torch.device) -> None:
    """What comes and goes cannot be trained, traced nor copied; and where it is copied block by block, never is all of it there."""
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
    objective: Objective = stage.objective
    new = objective.needs_reference and objective.sampling is not None
    taught = objective.teaching is not None and objective.teaching.teacher == "parent" and objective.teaching.top_k is None
    if (new or taught) and not stage.adapt.keeps_parent:
        what = f"{objective.kind} asks the parent at every step, which `adapt: {stage.adapt.kind}` changes; a streamed one is not copied"
        without = "set objective.beta to 0" if new else "set `objective.top_k`: it is asked once"
        raise TrainingError(what, f"{without}, take `lora`, or leave train.placement.stream out")


def check_writes(known: Known, so: str, remedy: str) -> None:
    """What only scores has lost the head that every other stage begins with.

    Raises:
        ModelError: it has; `so` says what cannot be done with it.
    """
    if known.outputs is not None and known.outputs[1].at == "leaf":
        raise ModelError(f"{known.parent.reference} scores text ({known.outputs[0]}) and writes none, so {so}", remedy)


def check_contexts(stage: Stage, known: Known, teacher: Known | None, rewarding: Mapping[str, Known]) -> None:
    """Whatever reads this stage's rows or answers must be able to: the model that learns, its teacher, what rewards it.

    Raises:
        ModelError: one of them would be shown more than it can read.
    """
    context, ahead, sampling = stage.data.context, stage.adapt.virtual_tokens, stage.objective.sampling
    said = f"data.context is {context}"
    _check_context(known, context, said, lambda most: f"set data.context to at most {most}", ahead)
    if teacher is not None:
        remedy = lambda most: f"set data.context to at most {most}, or take another `objective.teacher`"
        _check_context(teacher, context, said, remedy, teacher.virtual_tokens)
    if sampling is None:
        return
    # Writing ends where the writer's own positions end.
    longest = min(context + sampling.max_new_tokens, _positions(known) - ahead)
    said = f"{said} and objective.max_new_tokens {sampling.max_new_tokens}"
    remedy = lambda most: f"let data.context and objective.max_new_tokens be at most {most} together"
    _check_context(known, longest, said, remedy, ahead)
    for one in rewarding.values():
        _check_context(one, longest, said, remedy, one.virtual_tokens)


def _check_context(known: Known, length: int, said: str, remedy: Callable[[int], str], ahead: int) -> None:
    """Positions a model has never been told of, or whose rotation would depend on the neighbours.

    Args:
        length: the longest text that it will be shown, in tokens; `said` is where that comes from.
        remedy: what to do, given how many tokens it could be shown.
        ahead: virtual tokens before every text.
    """
    most, longest, who = _positions(known), longest_path(known.outline.config), known.parent.reference
    said += f" and {ahead} virtual tokens" if ahead else ""
    if length + ahead > most:
        raise ModelError(f"{said}, but {who} knows {most} positions", remedy(most - ahead))
    if longest is not None and length + ahead > longest:
        what = f"{said}: beyond {longest} tokens a path's rotation would depend on its neighbours in {who}"
        raise ModelError(what, remedy(longest - ahead))


def _positions(known: Known) -> int:
    """All that there are, where the configuration knows no end."""
    return getattr(known.outline.config.get_text_config(), "max_position_embeddings", None) or 2**31
