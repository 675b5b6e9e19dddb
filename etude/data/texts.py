"""What text do sources hold, whatever their format? For what reads words alone, such as the learning of a tokenizer."""

from collections.abc import Iterator, Sequence

from etude.data.counts import Dropped, SourceCounts
from etude.data.locate import File, locate
from etude.data.read import Row
from etude.data.records import Completion, Conversation, Pair, Rated, Record, RowError, Text
from etude.data.sources import wanted
from etude.recipe.data import Source

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


class Texts:
    """The texts of sources, in their order, read once. Rows that cannot be used are left out and counted.

    Args:
        sources: as a recipe has them; `weight` is not looked at.
        seed: of the choice, where `limit` is set.
    """

    def __init__(self, sources: Sequence[Source], seed: int = 0):
        self.sources, self.seed = sources, seed
        self.counts: list[SourceCounts] = []
        self.row: Row | None = None
        """Where the reading is."""
        self.texts = self.bytes = 0
        """What was read so far."""

    def __iter__(self) -> Iterator[str]:
        for source in self.sources:
            counts = SourceCounts(source.path)
            self.counts.append(counts)
            for row, reader in wanted(source, self.seed, counts):
                self.row = row
                try:
                    if isinstance(row.values, RowError):
                        raise row.values
                    record = reader(row.values)
                except RowError as error:
                    counts.bad[error.kind] = counts.bad.get(error.kind, 0) + 1
                    counts.drop(Dropped(row.source, row.number, error.kind, error.message))
                    continue
                counts.kept += 1
                for text in texts_of(record):
                    self.texts += 1
                    self.bytes += len(text.encode())
                    yield text

    def lines(self) -> list[str]:
        """What was read and what was left out, in words."""
        said = []
        for counts in self.counts:
            said += [f"{counts.path}: {counts.read:,} rows read, {counts.kept:,} kept", *counts.notes]
            for kind, number in sorted(counts.bad.items()):
                first = next(one for one in counts.dropped if one.kind == kind)
                said.append(f"  {number:,} left out: {kind}; the first at {first.source}:{first.row}: {first.why}")
            for number, why in ((counts.left_out_by_where, "where"), (counts.left_out_by_limit, "limit")):
                said += [f"  {number:,} left out by `{why}`"] if number else []
        return said
