"""What does a stage read? From the recipe's `data` to training examples, held-out examples and questions, with every row accounted for."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.sample import Example
from etude.data.counts import Counts, Dropped, SourceCounts
from etude.data.encoder import Encoder
from etude.data.read import Row
from etude.data.records import Pair, Question, Rated, Record, RowError, Text
from etude.data.samples import Draft, Lesson, Teacher, TooLongError
from etude.data.sources import Reader, digest, wanted
from etude.data.split import Kept, how_many, kept_row, split
from etude.data.stretches import rows_wanted
from etude.data.telltale import MARKS, secret, texts_in
from etude.data.template import Template, as_dict
from etude.data.tokenised import called, corpus_rows, held_out_of, is_corpus
from etude.errors import DataError
from etude.recipe.data import Data, Source

BATCH = 256
"""Rows whose texts are encoded together."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What is learnt again beside the rows of the task: the last source of `Prepared.train`."""

    name: str
    share: float
    """Of all rows drawn."""
    rows: int
    left_out: int
    """Rows that have something in common with what is judged."""
    logical_tokens: int
    supervised_tokens: int
    fingerprint: str
    """SHA-256 over tokens and weights; of prompts that the parent is yet to answer, over these."""
    answers: str = ""
    """How far the parent is with its answers to them; empty where rows are learnt as they are."""

    @property
    def line(self) -> str:
        if self.answers:
            return f"replay: {self.share:.1%} of all rows drawn are of {self.name}: {self.rows:,} prompts, {self.answers}"
        aside = f"; {self.left_out:,} left out, which share something with what is judged" if self.left_out else ""
        learnt = f"{self.supervised_tokens:,} of {self.logical_tokens:,} tokens learnt"
        return f"replay: {self.share:.1%} of all rows drawn are of {self.name}: {self.rows:,} to choose from ({learnt}){aside}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a stage learns from and is judged on."""

    train: list[tuple[Source, list[Example]]]
    """Training examples of each source, in the order of its rows; mixing them by weight is the order's business."""
    held_out: list[Example]
    """Never trained on; in the order of the draw, so that the first n are a fair sample, whatever the order of files and rows."""
    questions: list[Question]
    """The held-out rows that end in an answer to be learnt, as they will be asked, in the same order."""
    counts: Counts
    """What became of every row."""
    fingerprint: str
    """SHA-256 over tokens, weights and roles of all examples: in the order of the training rows."""
    trained_on: np.ndarray
    """[distinct training rows] uint64, sorted: a digest of each one's prompt, or of its text where there is none."""
    asked: dict[tuple[str, int], int]
    """The same digest of each held-out row, by its source and row number."""
    replayed: Replayed | None = None
    """None where nothing is learnt again."""

    @property
    def examples(self) -> list[Example]:
        """Every training example, source by source."""
        return [example for _, source in self.train for example in source]


def prepare(
    data: Data,
    tokenizer: Any,
    *,
    roles: tuple[str, ...],
    stop_ids: frozenset[int],
    seed: int,
    progress: Callable[[int], None] | None = None,
    project: Path | None = None,
) -> Prepared:
    """Read, render, mask, split.

    Args:
        data: the recipe's `data`.
        tokenizer: the base's Hugging Face tokenizer, with its chat template.
        roles: what the objective needs each example to bring; empty where samples stand alone.
        stop_ids: tokens at which the base stops generating.
        seed: of the held-out split and of `limit`.
        progress: called with the number of rows that are ready so far.
        project: where corpora are looked for, upwards; by default the current directory.

    Raises:
        DataError: naming file, row and remedy.
    """
    encoder = Encoder(tokenizer, stop_ids)
    teacher = Teacher(Template(tokenizer), encoder, data.train_on, data.too_long, data.context)
    counts = Counts()
    kept: list[list[Kept]] = []
    apart = held_out_of(data, project)
    for group in [*([source] for source in data.sources), *([apart] if apart else [])]:
        counts.sources.append(SourceCounts(", ".join(map(called, group)), loss_weight=group[0].loss_weight))
        done = counts.total("kept")
        report = (lambda rows, before=done: progress(before + rows)) if progress else None
        read = (_kept(source, data, teacher, roles, seed, counts.sources[-1], report, project) for source in group)
        kept.append([row for rows in read for row in rows])
    divided = split(kept, apart[0] if apart else data.held_out, counts)
    return Prepared(
        train=[(source, _weighed(_examples(rows), source)) for source, rows in zip(data.sources, divided.train, strict=True)],
        held_out=_examples(divided.held_out),
        questions=[one.question for one in divided.held_out if one.question is not None],
        counts=counts,
        fingerprint=_fingerprint(data.sources, divided.train, divided.held_out),
        trained_on=np.unique(np.array([one.said for rows in divided.train for one in rows], np.uint64)),
        asked={(one.examples[0].source, one.examples[0].row): one.said for one in divided.held_out},
    )


def training_texts(data: Data, seed: int) -> list[str]:
    """The raw text that `prepare` will train on, before there is a tokenizer: the same rows are held out.

    Raises:
        DataError: a row cannot be read as the recipe says, or is no raw text.
    """
    texts: list[tuple[bytes, str]] = []
    for source in data.sources:
        for row, record in _readable(rows_wanted(data, source, seed, SourceCounts(source.path)), data):
            if not isinstance(record, Text):
                remedy = "give raw text, or name the tokenizer of a model in `base.tokenizer`"
                raise DataError(f"{row.source}:{row.number}: a newborn's tokenizer is trained on raw text, and this row is none", remedy)
            texts.append((digest(row, seed), record.text))
    if isinstance(data.held_out, Source):
        apart = _readable(wanted(data.held_out, seed, SourceCounts(data.held_out.path)), data)
        held_out = {record.text for _, record in apart if isinstance(record, Text)}
    else:
        held_out = {text for _, text in sorted(texts, key=lambda one: one[0])[: how_many(data.held_out, len(texts))]}
    return [text for _, text in texts if text not in held_out]


def _readable(rows: Iterator[tuple[Row, Reader]], data: Data) -> Iterator[tuple[Row, Record]]:
    """What rows say. One that cannot be read stops with its place, or is passed over: it is counted when the rows are prepared."""
    for row, reader in rows:
        try:
            if isinstance(row.values, RowError):
                raise row.values
            yield row, reader(row.values)
        except RowError as error:
            if data.bad_rows == "error":
                raise error.at(row.source, row.number) from error


def _kept(
    source: Source,
    data: Data,
    teacher: Teacher,
    roles: tuple[str, ...],
    seed: int,
    counts: SourceCounts,
    report: Callable[[int], None] | None,
    project: Path | None,
) -> Iterator[Kept]:
    """The rows of one source that can be used, batch by batch, so that the tokenizer sees many texts at once."""
    if is_corpus(source):
        _check_roles(Text(""), roles, Row(source.path, 1, {}))
        for row in corpus_rows(source, data.context, teacher.encoder, seed, counts, project):
            yield row
            if report and counts.kept % BATCH == 0:
                report(counts.kept)
        return
    rows = rows_wanted(data, source, seed, counts)
    while batch := list(islice(rows, BATCH)):
        drafts: list[tuple[Row, Draft]] = []
        for row, reader in batch:
            try:
                if isinstance(row.values, RowError):
                    raise row.values
                record = reader(row.values)
                _check_roles(record, roles, row)
                drafts.append((row, teacher.draft(record)))
            except RowError as error:
                _refuse(error, row, data, counts)
        teacher.encoder.warm([text for _, draft in drafts for text in draft.texts()])
        for row, draft in drafts:
            try:
                kept = _keep(row, teacher.lesson(draft), seed, counts)
                counts.unknown += teacher.encoder.unknown_in(kept.examples)
                yield kept
            except RowError as error:
                _refuse(error, row, data, counts)
        if report:
            report(counts.kept)


def _examples(rows: list[Kept]) -> list[Example]:
    return [example for one in rows for example in one.examples]


def _weighed(examples: list[Example], source: Source) -> list[Example]:
    """Training rows as their source counts in the loss. Held-out rows keep their weights: a judgement counts tokens."""
    if source.loss_weight == 1.0:
        return examples
    factor = np.float32(source.loss_weight)
    heavier = lambda samples: tuple(replace(sample, weight=sample.weight * factor) for sample in samples)
    return [replace(example, samples=heavier(example.samples)) for example in examples]


def _refuse(error: RowError, row: Row, data: Data, counts: SourceCounts) -> None:
    """Stop with the row's place, or count it, as the recipe says."""
    too_long = isinstance(error, TooLongError)
    if data.too_long == "error" if too_long else data.bad_rows == "error":
        raise error.at(row.source, row.number) from error
    counts.drop(Dropped(row.source, row.number, error.kind, error.message))
    if not too_long:
        counts.bad[error.kind] = counts.bad.get(error.kind, 0) + 1
    elif error.last_turn:
        counts.last_turn_too_long += 1
    else:
        counts.too_long += 1


def _check_roles(record: Record, roles: tuple[str, ...], row: Row) -> None:
    """A data set of another kind than the objective's is no bad row: it stops the run whatever `bad_rows` says."""
    needs = {"chosen", "rejected"} if isinstance(record, Pair) else {"desirable", "undesirable"} if isinstance(record, Rated) else set()
    if needs == set(roles):
        return
    kinds: dict[type, str] = {Pair: "pairs of chosen and rejected answers", Rated: "rated answers", Text: "raw text"}
    found = kinds.get(type(record), "single answers")
    wants = f"examples with {' and '.join(roles)} answers" if roles else "single answers or raw text"
    remedy = (
        f"give it such rows ({', '.join(roles)})" if roles else "choose an objective for such rows, such as dpo for pairs, or other data"
    )
    raise DataError(f"{row.source}:{row.number}: the objective needs {wants}, and these rows are {found}", remedy)


def _keep(row: Row, lesson: Lesson, seed: int, counts: SourceCounts) -> Kept:
    counts.kept += 1
    counts.truncated += lesson.turns_cut > 0
    counts.turns_cut += lesson.turns_cut
    counts.answers_cut += lesson.answers_cut
    if len(lesson.examples) > 1:
        counts.split_documents += 1
        counts.pieces += len(lesson.examples)
    for name in ("unrolled", "prefilled", "touching", "marked"):
        setattr(counts, name, getattr(counts, name) + getattr(lesson, name))
    counts.openings += lesson.opening
    texts = list(texts_in(row.values))
    counts.template_marks += any(MARKS.search(text) for text in texts)
    counts.secrets += any(secret(text) for text in texts)
    examples = tuple(Example(samples, row.source, row.number) for samples in lesson.examples)
    return kept_row(examples, lesson.prompt, digest(row, seed), _question(row, lesson))


def _question(row: Row, lesson: Lesson) -> Question | None:
    """None where the row does not end in an answer that is learnt."""
    if lesson.prompt is None or lesson.turns[-1].role != "assistant" or lesson.turns[-1].train is False:
        return None
    *asked, answer = lesson.turns
    return Question(np.asarray(lesson.prompt, np.int32), tuple(as_dict(turn) for turn in asked), answer.content, row.source, row.number)


def _fingerprint(sources: list[Source], train: list[list[Kept]], held_out: list[Kept]) -> str:
    """In the order of the rows where they are trained on, because another order is another course; in no order where they are not."""
    hashed = hashlib.sha256()
    for source, rows in zip(sources, train, strict=True):
        hashed.update(f"{len(rows)};".encode() + (f"weight {source.loss_weight};".encode() if source.loss_weight != 1.0 else b""))
        hashed.update(b"".join(kept.whole for kept in rows))
    hashed.update(b"held out;" + b"".join(sorted(kept.whole for kept in held_out)))
    return hashed.hexdigest()
