"""What is learnt again beside the task, so that it is not forgotten: never what is judged, and every row of it counted."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from etude.compose.trial import Trial
from etude.core.sample import Example, Sample
from etude.data.encoder import Encoder
from etude.data.order import Order
from etude.data.prepare import Prepared, Replayed, prepare
from etude.data.records import RowError, Text
from etude.data.samples import Teacher
from etude.data.template import Template
from etude.errors import DataError
from etude.evaluation.general_text import general_text
from etude.recipe.schema import Data, Replay, Source, Stage

RUN = 16
"""Tokens in a row that no replayed row has in common with a passage that is judged."""
_SHIFT = np.uint64(0x9E3779B97F4A7C15)


def with_replay(
    prepared: Prepared,
    stage: Stage,
    trial: Trial | None,
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: frozenset[int],
) -> Prepared:
    """The same with the rows of `data.replay` as one more source, drawn at its share; as it is where there is none.

    Args:
        trial: what is judged; None where nothing is.
        held_out: every example held out, judged or not.

    Raises:
        DataError: nothing is left to replay, or a row cannot be used.
    """
    settings = stage.data.replay
    if settings is None:
        return prepared
    name, found, trained_on = _rows(settings, stage, tokenizer, stop_ids)
    judged = _runs(one.samples[0] for one in trial.general) if trial is not None else np.zeros(0, np.uint64)
    asked = {part for one in held_out for sample in one.samples for part in (sample.tokens.tobytes(), _prompt(sample))}
    alike = set()
    for example in found:
        same = any(part in asked for sample in example.samples for part in (sample.tokens.tobytes(), _prompt(sample)))
        if same or np.isin(_runs(example.samples), judged).any():
            alike.add((example.source, example.row))
    kept = [example for example in found if (example.source, example.row) not in alike]  # no other piece of the same text either
    if not kept:
        what = f"data.replay: no row of {name} is left: {len(alike):,} were read, and all have something in common with what is judged"
        raise DataError(what, "give another `source`, or judge less (`evaluate.keep.tokens`)")
    weights = [source.weight or float(len(examples)) for source, examples in prepared.train]
    source = Source(path=name, weight=sum(weights) * settings.share / (1 - settings.share))
    samples = [sample for example in kept for sample in example.samples]
    replayed = Replayed(
        name=name,
        share=settings.share,
        rows=len({(example.source, example.row) for example in kept}),
        left_out=len(alike),
        logical_tokens=sum(map(len, samples)),
        supervised_tokens=sum(int((sample.weight > 0).sum()) for sample in samples),
        fingerprint=hashlib.sha256(b"|".join(sample.tokens.tobytes() + sample.weight.tobytes() for sample in samples)).hexdigest(),
    )
    known = np.union1d(prepared.trained_on, trained_on)
    return replace(prepared, train=[*prepared.train, (source, kept)], replayed=replayed, trained_on=known)


def _rows(
    settings: Replay, stage: Stage, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> tuple[str, list[Example], np.ndarray]:
    """What they are called, all of them, and the digests by which other runs know them."""
    if settings.source is not None:
        data = stage.data.model_copy(update={"sources": [settings.source], "held_out": 0, "replay": None})
        rows = prepare(data, tokenizer, roles=(), stop_ids=stop_ids, seed=stage.train.seed)
        return settings.source.path, [one for _, examples in rows.train for one in examples], rows.trained_on
    text = general_text()
    return "general text installed with Python", list(_texts(text.passages, stage.data, tokenizer, stop_ids)), np.zeros(0, np.uint64)


def _texts(passages: Sequence[str], data: Data, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Iterator[Example]:
    teacher = Teacher(Template(tokenizer), Encoder(tokenizer, stop_ids), "everything", data.too_long, data.context)
    for number, passage in enumerate(passages, 1):
        try:
            lesson = teacher.lesson(teacher.draft(Text(passage)))
        except RowError as error:
            raise error.at("general text", number) from error
        yield from (Example(samples, "general text", number) for samples in lesson.examples)


def _prompt(sample: Sample) -> bytes:
    """What stands before the first learnt token; a text has nothing there that says anything."""
    first = int(np.flatnonzero(sample.weight)[0])
    return sample.tokens[:first].tobytes() if first > 1 else sample.tokens.tobytes()


def _runs(samples: Iterator[Sample] | Sequence[Sample]) -> np.ndarray:
    """A digest of every run of `RUN` tokens."""
    found = [np.zeros(0, np.uint64)]
    for sample in samples:
        windows = np.lib.stride_tricks.sliding_window_view(sample.tokens, RUN) if len(sample) >= RUN else np.zeros((0, RUN), np.int32)
        digest = np.zeros(len(windows), np.uint64)
        for column in windows.T.astype(np.uint64):
            digest = (digest ^ column) * _SHIFT
            digest ^= digest >> np.uint64(29)
        found.append(digest)
    return np.unique(np.concatenate(found))


def replay_sentence(replayed: Replayed, order: Order, sources: Sequence[Sequence[Example]], drawn: int) -> str:
    """How much of what was learnt was learnt again: counted by drawing once more."""
    again, tokens = 0, [0, 0]
    for source, index in order.draw(order.start(), drawn)[0]:
        last = source == len(sources) - 1
        again += last
        tokens[last] += sum(int((sample.weight > 0).sum()) for sample in sources[source][index].samples)
    rows = f"{again:,} of the {drawn:,} rows drawn ({again / drawn:.1%})"
    return f"Replay: {rows} were of {replayed.name}, {tokens[1]:,} of {sum(tokens):,} supervised tokens ({tokens[1] / sum(tokens):.1%})."
