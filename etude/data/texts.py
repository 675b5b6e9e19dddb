"""What text do sources hold, whatever their format? For what reads words alone, such as the learning of a tokenizer."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from etude.data.corpus.tokenise import held_out
from etude.data.counts import Dropped, SourceCounts
from etude.data.locate import File, locate
from etude.data.read import Row
from etude.data.records import Completion, Conversation, Pair, Rated, Record, RowError, Text
from etude.data.rules.contract import Judge, Rejected
from etude.data.sources import Reader, digest, wanted
from etude.data.split import how_many
from etude.data.stretches import rows_wanted
from etude.recipe.data import Data, Source

REJECTED = "rejected by the corpus's rules"

_PACKED = 4
"""Bytes of text that a packed byte is taken for, until it is read."""


def texts_of(record: Record) -> Iterator[str]:
    """Everything that is said in a row, in its order; a prompt that two answers share comes once."""
    if isinstance(record, Text):
        yield record.text
    elif isinstance(record, Completion):
        yield from (text for text in (record.system, record.prompt, record.completion) if text)
    elif isinstance(record, Conversation):
        yield from (message.content for message in record.messages if message.content)
    elif isinstance(record, Pair):
        yield from dict.fromkeys((*texts_of(record.chosen), *texts_of(record.rejected)))
    elif isinstance(record, Rated):
        yield from texts_of(record.answer)


def expected_bytes(source: Source) -> int:
    """About how much a source holds, from the sizes of its files; 0 where nobody knows before it is read.

    Raises:
        DataError: nothing is there.
    """
    return 0 if source.path.startswith("hub:") else sum(_size(file) for file in locate(source.path)[0])


def _size(file: File) -> int:
    """0 where the place does not tell."""
    return (file.size or 0) * (_PACKED if file.compression or file.suffix == ".parquet" else 1)


@dataclass(frozen=True, slots=True)
class Portion:
    """A source, and what of it a recipe keeps apart."""

    source: Source
    seed: int = 0
    """Of the choice, where `limit` is set."""
    data: Data | None = None
    """Of the stage that reads it; None where it is read as it is, or for a corpus."""
    aside: Mapping[int, AbstractSet[bytes]] = field(default_factory=dict)
    """Digests of the rows that stages hold out, by their seeds."""
    judges: Sequence[Judge] = ()
    """The rules that a corpus's documents pass."""
    share: float = 0.0
    """Share of documents that a corpus holds out."""

    def rows(self, counts: SourceCounts) -> Iterator[tuple[Row, Reader]]:
        """As the recipe reads them."""
        if self.data is None:
            return wanted(self.source, self.seed, counts)
        return rows_wanted(self.data, self.source, self.seed, counts)

    def texts(self, row: Row, record: Record, counts: SourceCounts) -> list[str]:
        """What is said in a row; nothing, and counted, where it is kept apart."""
        if any(digest(row, seed) in apart for seed, apart in self.aside.items()):
            counts.held_out += 1
            return []
        found = list(texts_of(record))
        if not self.judges and not self.share:
            return found
        documents = [self._document(text, counts) for text in found]
        return [text for text in documents if text]

    def _document(self, text: str, counts: SourceCounts) -> str:
        for judge in self.judges:
            decided = judge(text)
            if isinstance(decided, Rejected) or not decided.strip():
                counts.bad[REJECTED] = counts.bad.get(REJECTED, 0) + 1
                return ""
            text = decided
        if held_out(np.frombuffer(blake2b(text.encode(), digest_size=16).digest(), "<u8")[None], self.share)[0]:
            counts.held_out += 1
            return ""
        return text


def held_out_rows(data: Data, seed: int) -> set[bytes]:
    """Digests of the rows that a stage with this `data` holds out, before there is a tokenizer.

    Rows that only a tokenizer can refuse, such as too long ones, are taken for usable: by as many the choice may be off.

    Raises:
        DataError: a file cannot be read.
    """
    if isinstance(data.held_out, Source):
        rows = wanted(data.held_out, seed, SourceCounts(data.held_out.path))
        return {digest(row, seed) for row, _ in rows if isinstance(row.values, dict)}
    if not data.held_out:
        return set()
    found: list[bytes] = []
    for source in data.sources:
        for row, reader in rows_wanted(data, source, seed, SourceCounts(source.path)):
            if isinstance(row.values, RowError):
                continue
            try:
                reader(row.values)
            except RowError:  # counted when it is read
                continue
            found.append(digest(row, seed))
    return set(heapq.nsmallest(how_many(data.held_out, len(found)), found))


class Texts:
    """The texts of sources, in their order, read once. Rows that cannot be used or are kept apart are left out and counted."""

    def __init__(self, portions: Sequence[Portion]):
        self.portions = portions
        self.counts: list[SourceCounts] = []
        self.row: Row | None = None
        """Where the reading is."""
        self.texts = self.bytes = 0
        """What was read so far."""

    def __iter__(self) -> Iterator[str]:
        for portion in self.portions:
            counts = SourceCounts(portion.source.path)
            self.counts.append(counts)
            for row, reader in portion.rows(counts):
                self.row = row
                try:
                    if isinstance(row.values, RowError):
                        raise row.values
                    record = reader(row.values)
                except RowError as error:
                    counts.bad[error.kind] = counts.bad.get(error.kind, 0) + 1
                    counts.drop(Dropped(row.source, row.number, error.kind, error.message))
                    continue
                texts = portion.texts(row, record, counts)
                counts.kept += bool(texts)
                for text in texts:
                    self.texts += 1
                    self.bytes += len(text.encode())
                    yield text

    def lines(self) -> list[str]:
        """What was read and what was left out, in words."""
        said = []
        for counts in self.counts:
            said += [f"{counts.path}: {counts.read:,} rows read, {counts.kept:,} kept", *counts.notes]
            for kind, number in sorted(counts.bad.items()):
                first = next((one for one in counts.dropped if one.kind == kind), None)
                where = "" if first is None else f"; the first at {first.source}:{first.row}: {first.why}"
                said.append(f"  {number:,} left out: {kind}{where}")
            for number, why in (
                (counts.left_out_by_where, "by `where`"), (counts.left_out_by_limit, "by `limit`"), (counts.held_out, "as held out"),
            ):  # fmt: skip
                said += [f"  {number:,} left out {why}"] if number else []
        return said
