"""Measure a stage's result and its parent on the same rows; what the numbers mean is `evaluation`'s business."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from etude.compose.trial import Trial, only
from etude.compose.voice import Voice
from etude.core.sample import Example, Sample
from etude.data.rows import Cut, rows_of
from etude.engine.score import leaf_outputs, likelihoods
from etude.evaluation.preference import CHOSEN, REJECTED
from etude.model.divergence import States, divergence
from etude.model.generate import Generated, generate
from etude.model.policy import Policy
from etude.objective.contract import Objective
from etude.recipe.schema import Evaluate


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One model's results of a trial."""

    held_out: np.ndarray
    """[examples] negative log-likelihood in nats."""
    weight: np.ndarray
    """[examples] supervised tokens."""
    preferred: np.ndarray | None
    """[examples] whether the chosen answer was likelier than the rejected one; None where rows are no pairs."""
    answers: list[Generated]
    general: np.ndarray
    """[passages] negative log-likelihood in nats."""
    general_tokens: np.ndarray
    states: list[States]
    """Of each row of general text, to compare distributions with."""
    by_head: bool = False
    """Whether it was read by a head of its own."""


def glance(policy: Policy, held_out: Sequence[Example], cut: Cut, objective: Objective, size: int | None = None) -> dict[str, float]:
    """A look at held-out rows along the way: the loss; of rated answers that of the liked ones; of pairs the share preferred; of labels
    that a head tells the share that is right, and of labels that are weighed by their words the cross-entropy between these. Of raw text
    of `size` bytes, the bits per byte too: nats / ln 2 / bytes."""
    role = held_out[0].samples[0].role
    if objective.writes and objective.choices:
        return {"held_out_loss_labels": _between_labels(policy, objective.arrange(held_out), cut)}
    if not objective.writes and objective.choices:
        prompts = objective.arrange(held_out)
        found = leaf_outputs(policy, prompts, cut).argmax(-1)
        return {"held_out_accuracy": float(np.mean(found == [one.samples[0].value for one in prompts]))}
    if not objective.writes:
        worth = leaf_outputs(policy, [only(side, one) for one in held_out for side in (CHOSEN, REJECTED)], cut)[:, 0]
        return {"held_out_preferred": float((worth[::2] > worth[1::2]).mean())}
    if role in (CHOSEN, REJECTED):
        loss = likelihoods(policy, [only(side, one) for one in held_out for side in (CHOSEN, REJECTED)], cut).negative_log_likelihood
        return {"held_out_preferred": float((loss[::2] < loss[1::2]).mean())}
    found = likelihoods(policy, held_out, cut)
    bits = {"held_out_bits_per_byte": float(found.negative_log_likelihood.sum()) / math.log(2) / size} if size else {}
    return {f"held_out_loss_{role}" if role else "held_out_loss": found.mean, **bits}


def measure(
    policy: Policy,
    trial: Trial,
    *,
    cut: Cut,
    stop_ids: frozenset[int],
    settings: Evaluate,
    voice: Voice,
    who: str,
    within: Callable[[], AbstractContextManager] = nullcontext,
    will_change: bool = False,
    by_head: bool = False,
) -> Measured:
    """Score and ask one model.

    Args:
        within: entered around everything, for a parent that is its child with the adapters off.
        will_change: the model itself is about to be trained, so its head is copied for later comparison.
        by_head: whether this model reads a head of its own, where the trial is of such.
    """
    if trial.by_head:
        with within():
            return _scored(policy, trial, cut, voice, who, by_head)
    # Distributions are compared later, when adapters are on again: then an adapted head must be read without its own.
    head = copy.deepcopy(policy.head) if will_change else policy.head
    if within is not nullcontext:
        head = getattr(head, "base_layer", head)
    with within():
        # A pair's answers side by side, so that their prompt is read once.
        scored = [one for pair in zip(trial.held_out, trial.rejected, strict=True) for one in pair] if trial.rejected else trial.held_out
        total = sum(len(sample) for example in (*scored, *trial.general) for sample in example.samples)
        with voice.bar(f"scoring {who}", total, "tokens") as advance:
            report = lambda tokens: advance(tokens, "")
            held_out = likelihoods(policy, scored, cut, report)
            general = likelihoods(policy, trial.general, cut, report) if trial.general else None
        states = [States.of(policy, row.to(policy.device), head) for row in rows_of(trial.general, cut)] if trial.general else []
        answers: list[Generated] = []
        if trial.choices:
            answers = _chosen(policy, trial, cut, voice, who, by_head=False)
        elif trial.questions:
            with voice.bar(f"answers of {who}", len(trial.questions), "answers") as advance:
                done = 0

                def answered(count: int, _of: int) -> None:
                    nonlocal done
                    advance(count - done, "")
                    done = count

                prompts = [question.tokens.tolist() for question in trial.questions]
                answers = generate(
                    policy.model, prompts, stop_ids=stop_ids, max_new_tokens=settings.max_new_tokens, progress=answered, say=voice.say
                )
    loss, every = held_out.negative_log_likelihood, 2 if trial.rejected else 1
    return Measured(
        loss[::every],
        held_out.weight[::every],
        loss[::2] < loss[1::2] if trial.rejected else None,
        answers,
        general.negative_log_likelihood if general is not None else np.zeros(0),
        general.weight if general is not None else np.zeros(0),
        states,
    )


def _scored(policy: Policy, trial: Trial, cut: Cut, voice: Voice, who: str, by_head: bool) -> Measured:
    """Pairs or labels by a head. A model without one likes neither answer better, and says labels by the likelihood of their words."""
    nothing, preferred = np.zeros(0), None
    if trial.rejected and by_head:
        scored = [one for pair in zip(trial.held_out, trial.rejected, strict=True) for one in pair]
        with voice.bar(f"scoring {who}", sum(len(one.samples[0]) for one in scored), "tokens") as advance:
            worth = leaf_outputs(policy, scored, cut, lambda tokens: advance(tokens, ""))[:, 0]
        preferred = worth[::2] > worth[1::2]
    answers = _chosen(policy, trial, cut, voice, who, by_head) if trial.choices else []
    return Measured(nothing, nothing, preferred, answers, nothing, nothing, [], by_head)


def _chosen(policy: Policy, trial: Trial, cut: Cut, voice: Voice, who: str, by_head: bool) -> list[Generated]:
    """One of the labels for each question: the head's, or the one whose words are likeliest behind the prompt, which is computed once."""
    words = [np.asarray(tokens, np.int32) for tokens in trial.choices.values()]
    prompts = [Example((Sample(one.tokens, np.zeros(len(one.tokens), np.float32)),), one.source, one.row) for one in trial.questions]
    scored = prompts if by_head else [_followed(one, word) for one in prompts for word in words]
    with voice.bar(f"labels by {who}", sum(len(one.samples[0]) for one in scored), "tokens") as advance:
        report = lambda tokens: advance(tokens, "")
        if by_head:
            found = leaf_outputs(policy, scored, cut, report).argmax(-1)
        else:
            found = likelihoods(policy, scored, cut, report).negative_log_likelihood.reshape(-1, len(words)).argmin(-1)
    return [Generated(words[i][:-1].tolist(), int(words[i][-1])) for i in found.tolist()]


def _between_labels(policy: Policy, siblings: Sequence[Example], cut: Cut) -> float:
    """Nats a row by which the right label's words fall short of all the labels' together."""
    alone = [Example((sample,), one.source, one.row) for one in siblings for sample in one.samples]
    said = -likelihoods(policy, alone, cut).negative_log_likelihood.reshape(len(siblings), -1)  # [rows, labels]
    right = np.array([[sample.value for sample in one.samples] for one in siblings], bool)
    return float(np.mean(np.logaddexp.reduce(said, -1) - said[right]))


def _followed(prompt: Example, word: np.ndarray) -> Example:
    asked = prompt.samples[0].tokens
    weight = (np.arange(len(asked) + len(word)) >= len(asked)).astype(np.float32)
    return Example((Sample(np.concatenate([asked, word]), weight),), prompt.source, prompt.row)


def divergences(trial: Trial, parent: Measured, tuned: Measured, cut: Cut) -> np.ndarray:
    """[passages] KL(parent ‖ tuned) summed over each passage's tokens, in nats."""
    sums = np.zeros(len(trial.general))
    for row, before, now in zip(rows_of(trial.general, cut), parent.states, tuned.states, strict=True):
        values = divergence(before, now).double().cpu()
        numbers = np.asarray(row.example)[row.member_sample.numpy()]
        np.add.at(sums, numbers, values.numpy()[row.member_prediction.numpy()])
    return sums
