"""Measure a stage's result and its parent on the same rows; what the numbers mean is `evaluation`'s business."""

import copy
import gzip
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from transformers import PreTrainedTokenizerBase

from etude.compose.voice import Voice
from etude.core.sample import Example, Sample
from etude.data.prepare import Prepared
from etude.data.records import Question
from etude.data.rows import Cut, rows_of
from etude.engine.score import leaf_outputs, likelihoods
from etude.errors import DataError
from etude.evaluation.general_text import GeneralText
from etude.evaluation.judge import check_expected
from etude.evaluation.preference import CHOSEN, REJECTED, UNDESIRABLE
from etude.model.divergence import States, divergence
from etude.model.generate import Generated, generate
from etude.model.policy import Policy
from etude.model.tokenizer import text_bytes
from etude.objective.contract import Objective
from etude.recipe.schema import Evaluate, Train

STOPPING_ROWS = 200
"""Held-out rows at most that early stopping looks at."""
FEWEST = 2
"""Rows or passages from which a difference can be told at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What both are asked: held-out examples to be scored, questions to be answered, general text to be kept."""

    held_out: Sequence[Example]
    """Of rows that are pairs, the chosen answers; of rated ones, those that were liked."""
    rejected: Sequence[Example]
    """The answers that lost, row by row; empty where rows are no pairs."""
    questions: Sequence[Question]
    general: Sequence[Example]
    general_bytes: np.ndarray
    """[passages] UTF-8 bytes of what is scored."""
    choices: Mapping[str, tuple[int, ...]]
    """Labels with the tokens of their words, where each question is answered by one of them; empty where answers are written."""
    usual: str
    """The label that most training rows have."""
    by_head: bool
    """Whether the tuned model reads a head of its own, and so writes nothing."""
    held_out_bytes: np.ndarray | None = None
    """[examples] UTF-8 bytes of what is scored; None where rows are no raw text."""
    compressed: float | None = None
    """Bits for each of these bytes under `gzip -9`."""


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


def trial_of(
    prepared: Prepared,
    text: GeneralText | None,
    tokenizer: PreTrainedTokenizerBase,
    settings: Evaluate,
    context: int,
    objective: Objective,
) -> Trial:
    """Choose what is asked: the first rows held out, which stand in the order of the draw, and as much general text as the settings say."""
    passages, sizes = [], []
    left = settings.keep.tokens if settings.keep is not None and objective.writes else 0
    for number, passage in enumerate(text.passages if text is not None else ()):
        if left < 2:
            break
        tokens = np.asarray(tokenizer(passage)["input_ids"][: min(context, left)], dtype=np.int32)
        if len(tokens) < 2:  # nothing in it is predicted; the next passage may be longer
            continue
        weight = np.ones(len(tokens), dtype=np.float32)
        weight[0] = 0
        passages.append(Example((Sample(tokens, weight),), "general text", number + 1))
        sizes.append(len(str(tokenizer.decode(tokens[1:])).encode()))
        left -= len(tokens)
    held_out = held_out_of(prepared, settings.rows)
    disliked = _disliked(prepared)
    questions = [question for question in prepared.questions if (question.source, question.row) not in disliked]
    asked = questions[: settings.rows] if (settings.generate and objective.writes) or objective.choices else []
    rejected = [one for example in held_out if (one := _only(REJECTED, example)).samples]
    if rejected:
        held_out = [_only(CHOSEN, example) for example in held_out]
    texts: list[bytes] = []
    if objective.writes and not prepared.questions and not any(one.samples[0].role for one in held_out):
        texts = scored_texts(held_out, tokenizer)
    lengths = np.array(list(map(len, texts))) if any(texts) else None
    compressed = _compressed(prepared, dict(zip(map(id, held_out), texts, strict=False))) if any(texts) else None
    sizes, by_head = np.asarray(sizes), not objective.writes
    choices = objective.choices, objective.usual_choice
    return Trial(held_out, rejected, asked, passages, sizes, *choices, by_head, lengths, compressed)


def set_aside(prepared: Prepared, train: Train) -> tuple[Prepared, list[Example]]:
    """Held-out rows that early stopping looks at, apart from those that are judged: the last half, of at most 400.

    Raises:
        DataError: there are too few for both.
    """
    if train.early_stopping is None:
        return prepared, []
    rows = list(dict.fromkeys((one.source, one.row) for one in prepared.held_out))
    count = min(len(rows) // 2, STOPPING_ROWS)
    if not count:
        what = f"train.early_stopping: {len(rows)} rows are held out, and one to look at and one to judge are needed"
        raise DataError(what, "hold out more (`data.held_out`)")
    chosen = set(rows[len(rows) - count :])
    looked_at = [one for one in prepared.held_out if (one.source, one.row) in chosen]
    others = [one for one in prepared.held_out if (one.source, one.row) not in chosen]
    questions = [one for one in prepared.questions if (one.source, one.row) not in chosen]
    looked_at = held_out_of(replace(prepared, held_out=looked_at), STOPPING_ROWS)
    if not looked_at:
        raise DataError("train.early_stopping: no held-out row to look at has a liked answer", "hold out more (`data.held_out`)")
    return replace(prepared, held_out=others, questions=questions), looked_at


def _compressed(prepared: Prepared, texts: dict[int, bytes]) -> float:
    """Bits for each byte under `gzip -9` of what is scored, a document's pieces in its order: gzip too reads what came before."""
    whole = b"".join(texts[id(one)] for one in prepared.held_out if id(one) in texts)
    return 8 * len(gzip.compress(whole, 9, mtime=0)) / len(whole)


def scored_texts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes of each example whose tokens are scored: all but the first token's, or what a later piece only reads."""
    return [b"".join(text_bytes(tokenizer, sample.tokens[sample.weight > 0].tolist()) for sample in one.samples) for one in examples]


def held_out_of(prepared: Prepared, count: int) -> list[Example]:
    """At most so many held-out examples, whole pairs among them; answers that were not liked are nothing to be likelier."""
    disliked = _disliked(prepared)
    return fair_sample([one for one in prepared.held_out if (one.source, one.row) not in disliked], count)


def _disliked(prepared: Prepared) -> set[tuple[str, int]]:
    return {(one.source, one.row) for one in prepared.held_out if one.samples[0].role == UNDESIRABLE}


def glance(policy: Policy, held_out: Sequence[Example], cut: Cut, objective: Objective, size: int | None = None) -> dict[str, float]:
    """A look at held-out rows along the way: the loss; of rated answers that of the liked ones; of pairs the share preferred; of labels
    that a head tells the share that is right. Of raw text of `size` bytes, the bits per byte too: nats / ln 2 / bytes."""
    role = held_out[0].samples[0].role
    if not objective.writes and objective.choices:
        prompts = objective.arrange(held_out)
        found = leaf_outputs(policy, prompts, cut).argmax(-1)
        return {"held_out_accuracy": float(np.mean(found == [one.samples[0].value for one in prompts]))}
    if not objective.writes:
        worth = leaf_outputs(policy, [_only(side, one) for one in held_out for side in (CHOSEN, REJECTED)], cut)[:, 0]
        return {"held_out_preferred": float((worth[::2] > worth[1::2]).mean())}
    if role in (CHOSEN, REJECTED):
        loss = likelihoods(policy, [_only(side, one) for one in held_out for side in (CHOSEN, REJECTED)], cut).negative_log_likelihood
        return {"held_out_preferred": float((loss[::2] < loss[1::2]).mean())}
    found = likelihoods(policy, held_out, cut)
    bits = {"held_out_bits_per_byte": float(found.negative_log_likelihood.sum()) / math.log(2) / size} if size else {}
    return {f"held_out_loss_{role}" if role else "held_out_loss": found.mean, **bits}


def fair_sample(examples: Sequence[Example], count: int) -> list[Example]:
    """The first `count` of held-out examples that stand in the order of the draw, a piece of each row before a second one of any.

    Only long texts have several pieces; their order within a row is that of their digests, so that no place in a text is preferred.
    """
    rows: dict[tuple[str, int], list[Example]] = {}
    for one in examples:
        rows.setdefault((one.source, one.row), []).append(one)
    turns = zip_longest(*(sorted(pieces, key=_digest) if len(pieces) > 1 else pieces for pieces in rows.values()))
    return [one for turn in turns for one in turn if one is not None][:count]


def units(examples: Sequence[Example]) -> np.ndarray:
    """[examples] the number of the row that each is of: what the statistics resample, since pieces of one text are like each other.

    Where all are of one row there is nothing else to resample, and each stands for itself.
    """
    numbers: dict[tuple[str, int], int] = {}
    found = np.array([numbers.setdefault((one.source, one.row), len(numbers)) for one in examples], dtype=np.int64)
    return found if len(numbers) > 1 else np.arange(len(examples))


def _digest(example: Example) -> bytes:
    return hashlib.blake2b(example.samples[0].tokens.tobytes(), digest_size=16).digest()


def _only(role: str, example: Example) -> Example:
    return Example(tuple(sample for sample in example.samples if sample.role == role), example.source, example.row)


def check(trial: Trial, settings: Evaluate) -> None:
    """Refuse before anything is trained what could not be judged afterwards.

    Raises:
        DataError: too few rows or passages to tell a difference, or expected answers that a metric cannot read.
    """
    unjudged = "or train without judging (`evaluate: null`)"
    for rows, what in ((trial.held_out, ""), (trial.questions, " that end in an answer")):
        if len(rows) < FEWEST and (rows or not what):
            few = f"{len(rows)} {'row is' if len(rows) == 1 else 'rows are'} held out{what}: no difference can be told from fewer than two"
            raise DataError(few, f"hold out more (`data.held_out`, `evaluate.rows`), {unjudged}")
    if settings.keep is not None and len(trial.general) < FEWEST and not trial.by_head:
        few = f"evaluate.keep: {settings.keep.tokens} tokens of general text are one passage: no difference can be told from fewer than two"
        raise DataError(few, "score more (`evaluate.keep.tokens`), or leave it unmeasured (`evaluate.keep: null`)")
    places = [f"{question.source}:{question.row}" for question in trial.questions]
    check_expected(settings.metrics or (), places, [question.expected for question in trial.questions])


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
