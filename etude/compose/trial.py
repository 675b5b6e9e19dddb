"""What are a stage's result and its parent asked? Held-out rows, questions, general text: chosen before anything is trained."""

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from transformers import PreTrainedTokenizerBase

from etude.core.sample import Example, Sample
from etude.data.prepare import Prepared
from etude.data.records import Question
from etude.errors import DataError
from etude.evaluation.general_text import GeneralText
from etude.evaluation.judge import check_expected
from etude.evaluation.preference import CHOSEN, REJECTED, UNDESIRABLE
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
    rejected = [one for example in held_out if (one := only(REJECTED, example)).samples]
    if rejected:
        held_out = [only(CHOSEN, example) for example in held_out]
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


def only(role: str, example: Example) -> Example:
    """Its samples of that role."""
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
