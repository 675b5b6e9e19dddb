"""What do the checks read? Every row of the data: its values, what it says, what preparation made of it or why it refused it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from etude.data.checks.contract import Place
from etude.data.counts import SourceCounts
from etude.data.encoder import Encoder
from etude.data.prepare import BATCH, Prepared, prepare
from etude.data.questions import Question
from etude.data.read import Row
from etude.data.records import Completion, Conversation, Pair, Rated, Record, RowError, Text
from etude.data.samples import Draft, Lesson, Teacher
from etude.data.sources import Reader
from etude.data.stretches import rows_wanted
from etude.data.supervise import TrainOn, answers_of
from etude.data.telltale import texts_in
from etude.data.template import Template
from etude.errors import DataError
from etude.recipe.data import Data, Source

FLAGS = ("unrolled", "prefilled", "opening", "touching", "marked")
MOST_LABELS = 20
FEWEST_PER_LABEL = 5


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One row."""

    place: Place
    values: dict[str, Any] | None
    """Its columns; None where it cannot be read."""
    record: Record | None = None
    """What it says; None where it does not fit its format."""
    trouble: RowError | None = None
    """Why it cannot be used."""
    tokens: int = 0
    """Of its longest sample; 0 where no tokenizer was asked or the row cannot be used."""
    learnt: int = 0
    """Of all its tokens, the supervised ones."""
    flags: frozenset[str] = frozenset()
    """What preparation did with it: truncated, split, and the flags of a lesson."""
    judged: bool = False
    """Whether it comes from a source that is held out as a whole."""

    @property
    def asked(self) -> str:
        """Everything before the last answer, a paragraph a turn; empty for raw text."""
        match self.record:
            case Completion(prompt=prompt, system=system):
                return prompt if system is None else f"{system}\n\n{prompt}"
            case Conversation(messages=messages):
                last = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=len(messages))
                return "\n\n".join(m.content for m in messages[:last])
            case Pair(chosen=answer) | Rated(answer=answer):
                return replace(self, record=answer).asked
        return ""

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that are learnt; of a pair the chosen and the rejected one."""
        match self.record:
            case Completion(completion=completion):
                return (completion,)
            case Conversation(messages=messages):
                return tuple(m.content for m in messages if m.role == "assistant" and m.train is not False)
            case Pair(chosen=chosen, rejected=rejected):
                return tuple(replace(self, record=one).answers[-1] for one in (chosen, rejected))
            case Rated(answer=answer):
                return replace(self, record=answer).answers
        return ()

    @property
    def whole(self) -> str:
        """Everything it says, a paragraph a turn."""
        if isinstance(self.record, Text):
            return self.record.text
        return "\n\n".join(part for part in (self.asked, *self.answers[-2 if isinstance(self.record, Pair) else -1 :]) if part)

    @property
    def strings(self) -> Iterator[str]:
        """Every text in its columns, however deep."""
        return texts_in(self.values)


@dataclass(eq=False)
class Material:
    """All rows, and what is known of where they are going."""

    data: Data
    entries: list[Entry]
    tokenizer: Any = None
    """None where no base was named: then nothing is known of templates and tokens."""
    stop_ids: frozenset[int] = frozenset()
    prepared: Prepared | None = None
    """What a stage would get; None without a tokenizer, or where it would stop."""
    stop: DataError | None = None
    """Why a stage would stop, whatever single rows are left out."""
    notes: list[str] = field(default_factory=list)
    """What was decided about the sources, such as their format."""
    against: list[Question] = field(default_factory=list)
    """Questions that must not be trained on."""
    stretches: int = 0
    """Of the rows, those that are stretches of one text."""

    @cached_property
    def usable(self) -> list[Entry]:
        """Rows that say something."""
        return [entry for entry in self.entries if entry.record is not None and entry.trouble is None]

    @cached_property
    def held_out(self) -> set[Place]:
        """Rows that are judged on."""
        found = {entry.place for entry in self.entries if entry.judged}
        if self.prepared is not None:
            found |= {Place(one.source, one.row) for one in self.prepared.held_out}
        return found

    @cached_property
    def training(self) -> list[Entry]:
        """Usable rows that are trained on."""
        return [entry for entry in self.usable if entry.place not in self.held_out]

    @cached_property
    def opening(self) -> str:
        """What all prompts begin with, up to a space: the instruction that is the same in every row."""
        asked = [entry.asked for entry in self.usable if entry.asked]
        first, last = min(asked, default=""), max(asked, default="")  # in order, these two differ the earliest
        length = next((i for i, (one, other) in enumerate(zip(first, last)) if one != other), 0)
        common = first[:length]
        return common[: max(common.rfind(" "), common.rfind("\n")) + 1]

    def own(self, entry: Entry) -> str:
        """What a row says of its own: without the common opening, and without an answer that is a label."""
        if isinstance(entry.record, Text):
            return entry.record.text
        asked = entry.asked.removeprefix(self.opening)
        return asked if self.labels and asked.strip() else "\n\n".join((asked, *entry.answers[:1]))

    @cached_property
    def labels(self) -> dict[str, list[Entry]]:
        """Rows by their answer, where answers are labels: few different short ones, each often. Empty where they are not."""
        single = [entry for entry in self.training if len(entry.answers) == 1]
        counts = Counter(entry.answers[0].strip().casefold() for entry in single)
        often = [label for label, count in counts.items() if count >= FEWEST_PER_LABEL]
        covered = sum(counts[label] for label in often)
        if not 1 <= len(often) <= MOST_LABELS or covered < 0.95 * len(single) or max(map(len, often)) > 80:
            return {}
        groups: dict[str, list[Entry]] = {}
        for entry in single:
            groups.setdefault(entry.answers[0], []).append(entry)
        return groups


def gather(
    data: Data,
    tokenizer: Any = None,
    *,
    roles: tuple[str, ...] = (),
    stop_ids: frozenset[int] = frozenset(),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Material:
    """Read every row as a stage would, and go on where a stage would stop.

    Args:
        tokenizer: of the base, with its chat template; without it rows are only read.
        roles, stop_ids, seed: as `prepare` takes them.
        progress: called with the number of rows read so far.

    Raises:
        DataError: a file is missing or damaged, or no format fits its columns.
    """
    teacher = None
    if tokenizer is not None:
        teacher = Teacher(Template(tokenizer), Encoder(tokenizer, stop_ids), data.train_on, data.too_long, data.context)
    entries: list[Entry] = []
    notes: list[str] = []
    stretches = 0
    apart = data.held_out if isinstance(data.held_out, Source) else None
    for source in [*data.sources, *([apart] if apart else [])]:
        counts = SourceCounts(source.path)
        rows = rows_wanted(data, source, seed, counts)
        while batch := list(islice(rows, BATCH)):
            entries += _entries(batch, teacher, data, source is apart)
            if progress:
                progress(len(entries))
        notes += [note for note in counts.notes if note not in notes]
        stretches += counts.stretches
    material = Material(data, entries, tokenizer, stop_ids, notes=notes, stretches=stretches)
    if tokenizer is not None:
        lenient = data.model_copy(update={"bad_rows": "drop", "too_long": "drop" if data.too_long == "error" else data.too_long})
        try:
            material.prepared = prepare(lenient, tokenizer, roles=roles, stop_ids=stop_ids, seed=seed)
        except DataError as error:
            material.stop = error
    return material


def _entries(batch: list[tuple[Row, Reader]], teacher: Teacher | None, data: Data, judged: bool) -> list[Entry]:
    drafts: list[tuple[Entry, Draft | None]] = []
    for row, reader in batch:
        place = Place(row.source, row.number)
        if isinstance(row.values, RowError):
            drafts.append((Entry(place, None, trouble=row.values, judged=judged), None))
            continue
        entry = Entry(place, row.values, judged=judged)
        try:
            record = reader(row.values)
            entry = replace(entry, record=record)
            if teacher is None:
                _check_answers(record, data.train_on)
            drafts.append((entry, None if teacher is None else teacher.draft(record)))
        except RowError as error:
            drafts.append((replace(entry, trouble=error), None))
    if teacher is None:
        return [entry for entry, _ in drafts]
    teacher.encoder.warm([text for _, draft in drafts if draft is not None for text in draft.texts()])
    return [entry if draft is None else _taught(entry, draft, teacher) for entry, draft in drafts]


def _check_answers(record: Record, train_on: TrainOn) -> None:
    """What can be said of answers before they are rendered. RowError where one is missing or empty."""
    match record:
        case Pair(chosen=chosen, rejected=rejected):
            _check_answers(chosen, "answers")
            _check_answers(rejected, "answers")
        case Rated(answer=answer):
            _check_answers(answer, "answers")
        case Completion():
            answers_of(record.conversation().messages, train_on)
        case Conversation(messages=messages):
            answers_of(messages, train_on)


def _taught(entry: Entry, draft: Draft, teacher: Teacher) -> Entry:
    try:
        lesson: Lesson = teacher.lesson(draft)
    except RowError as error:
        return replace(entry, trouble=error)
    samples = [sample for samples in lesson.examples for sample in samples]
    flags = {name for name in FLAGS if getattr(lesson, name)}
    flags |= {"truncated"} if lesson.turns_cut else set()
    flags |= {"split"} if len(lesson.examples) > 1 else set()
    learnt = sum(int((sample.weight > 0).sum()) for sample in samples)
    return replace(entry, tokens=max(map(len, samples)), learnt=learnt, flags=frozenset(flags))
