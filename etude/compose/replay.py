"""What is learnt again beside the task, so that it is not forgotten: never what is judged, and every row of it counted."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from etude.compose.artefacts import Opened
from etude.compose.processes import leads
from etude.compose.trial import Trial
from etude.compose.voice import Voice
from etude.core import ranks
from etude.core.sample import Example, Sample
from etude.data.encoder import Encoder
from etude.data.order import Order
from etude.data.prepare import Prepared, Replayed, prepare
from etude.data.records import RowError, Text
from etude.data.samples import Teacher
from etude.data.template import Template
from etude.engine.rollouts import asked_and_answered
from etude.errors import DataError, TrainingError
from etude.evaluation.general_text import general_text
from etude.lineage.durable import write_file
from etude.model.generate import generate
from etude.recipe.data import Data, Replay, Source
from etude.recipe.schema import Stage

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
    project: Path | None = None,
) -> Prepared:
    """The same with the rows of `data.replay` as one more source, drawn at its share; as it is where there is none.

    Args:
        trial: what is judged; None where nothing is.
        held_out: every example held out, judged or not.
        project: where corpora are looked for.

    Raises:
        DataError: nothing is left to replay, or a row cannot be used.
    """
    settings = stage.data.replay
    if settings is None:
        return prepared
    name, found, trained_on = _rows(settings, stage, prepared, tokenizer, stop_ids, project)
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
    if settings.answers:
        name, kept = f"the parent's answers to {name}", _questions(kept)
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
        answers="to be answered before anything is learnt" if settings.answers else "",
    )
    unseen = np.array(list(prepared.asked.values()), np.uint64)
    known = np.union1d(prepared.trained_on, np.setdiff1d(trained_on, unseen))  # what is held out was left out above
    return replace(prepared, train=[*prepared.train, (source, kept)], replayed=replayed, trained_on=known)


def _rows(
    settings: Replay,
    stage: Stage,
    prepared: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: frozenset[int],
    project: Path | None,
) -> tuple[str, list[Example], np.ndarray]:
    """What they are called, all of them, and the digests by which other runs know them."""
    if settings.source is not None:
        data = stage.data.model_copy(update={"sources": [settings.source], "held_out": 0, "replay": None})
        rows = prepare(data, tokenizer, roles=(), stop_ids=stop_ids, seed=stage.train.seed, project=project)
        return settings.source.path, rows.examples, rows.trained_on
    if settings.answers:
        return "the training rows", prepared.examples, np.zeros(0, np.uint64)
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


def _questions(examples: Sequence[Example]) -> list[Example]:
    """Each prompt once, with nothing but itself to be learnt until the parent has answered it.

    Raises:
        TrainingError: a row asks nothing.
    """
    found: dict[bytes, Example] = {}
    for one in examples:
        prompt = np.asarray(asked_and_answered(one)[0], np.int32)
        whole = np.concatenate([np.zeros(1, np.float32), np.ones(len(prompt) - 1, np.float32)])
        found.setdefault(prompt.tobytes(), Example((Sample(prompt, whole),), one.source, one.row))
    return list(found.values())


def answered(prepared: Prepared, stage: Stage, opened: Opened, context: int, folder: Path, voice: Voice) -> Prepared:
    """The same with the parent's answers behind the prompts that are replayed; written to the run's folder once, and read from there.

    Args:
        opened: the parent, before anything is put on it.
        context: longest path in tokens.

    Raises:
        TrainingError: what was written is of other prompts.
    """
    settings, replayed = stage.data.replay, prepared.replayed
    if settings is None or replayed is None or not replayed.answers:
        return prepared
    source, questions = prepared.train[-1]
    file = folder / "replayed.json"
    if leads() and not file.exists():
        write_file(file, json.dumps({"answers": _written(questions, settings, opened, voice)}) + "\n")
    ranks.barrier()
    answers = json.loads(file.read_text(encoding="utf-8"))["answers"]
    if [answer["prompt"] for answer in answers] != [one.samples[0].tokens.tolist() for one in questions]:
        raise TrainingError(f"{file} holds answers to other prompts", "remove it and run again")
    examples = []
    for one, answer in zip(questions, answers, strict=True):
        tokens = np.asarray([*answer["prompt"], *answer["tokens"]], np.int32)[:context]
        weight = (np.arange(len(tokens)) >= len(answer["prompt"])).astype(np.float32)
        examples.append(Example((Sample(tokens, weight),), one.source, one.row))
    whole = sum(answer["stopped"] and len(answer["prompt"]) + len(answer["tokens"]) <= context for answer in answers)
    samples = [one.samples[0] for one in examples]
    learnt = sum(int((sample.weight > 0).sum()) for sample in samples)
    endless = len(answers) - whole
    open_ended = f"; {endless:,} have no end within {settings.max_new_tokens} tokens and the context, and none is learnt" if endless else ""
    said = f"answered with {learnt:,} tokens{open_ended}"
    replayed = replace(replayed, logical_tokens=sum(map(len, samples)), supervised_tokens=learnt, answers=said)
    voice.say(replayed.line)
    return replace(prepared, train=[*prepared.train[:-1], (source, examples)], replayed=replayed)


def _written(questions: Sequence[Example], settings: Replay, opened: Opened, voice: Voice) -> list[dict[str, Any]]:
    """What the parent answers, the likeliest token every time."""
    prompts = [one.samples[0].tokens.tolist() for one in questions]
    with voice.bar("answers of the parent, to be replayed", len(prompts), "answers") as advance:
        done = 0

        def told(count: int, _of: int) -> None:
            nonlocal done
            advance(count - done, "")
            done = count

        how = dict(stop_ids=opened.stop_ids, max_new_tokens=settings.max_new_tokens, progress=told, say=voice.say)
        answers = generate(opened.model, prompts, **how)
    ends = [[answer.stop] if answer.stop is not None else [] for answer in answers]
    return [
        {"prompt": prompt, "tokens": [*answer.tokens, *end], "stopped": answer.stopped}
        for prompt, answer, end in zip(prompts, answers, ends, strict=True)
    ]


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
