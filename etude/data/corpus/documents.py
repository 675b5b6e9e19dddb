"""Which documents does a unit hold, and in which parts? Read in their order, the same whoever reads."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from etude.data.corpus.plan import PART, Plan
from etude.data.counts import SourceCounts
from etude.data.locate import at_place
from etude.data.records import RowError, Text
from etude.data.sources import wanted
from etude.errors import DataError

BLANK = "blank rows"


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it came from."""

    text: str
    file: str
    row: int


def parts_of(plan: Plan, number: int, counts: SourceCounts) -> Iterator[list[Document]]:
    """The documents of a unit, part by part; what is no document is counted.

    Raises:
        DataError: a file cannot be read, or a row cannot be used and the recipe does not say that such rows are dropped.
    """
    unit = plan.units[number]
    source = plan.recipe.sources[unit.source]
    only = None
    if unit.files:
        only = [at_place(place, name) for place, name in unit.files]
        if plan.recipe.bad_rows == "drop":
            for empty in (file for file in only if file.size == 0):
                counts.note(f"{empty.name}: the file is empty, and left out")
            only = [file for file in only if file.size != 0]
    held: list[Document] = []
    size = 0
    for row, reader in wanted(source, 0, counts, only):
        try:
            if isinstance(row.values, RowError):
                raise row.values
            record = reader(row.values)
            if not isinstance(record, Text):
                what = f"{row.source}:{row.number}: a row of turns, where raw text is needed"
                raise DataError(what, "name the text's column: `columns: {theirs: text}` with `format: text`, or `render: {text: …}`")
        except RowError as error:
            kind = BLANK if _blank(row.values) else error.kind
            if kind != BLANK and plan.recipe.bad_rows == "error":
                raise error.at(row.source, row.number) from error
            counts.bad[kind] = counts.bad.get(kind, 0) + 1
            continue
        held.append(Document(record.text, row.source, row.number))
        size += len(record.text)
        if size >= PART:
            yield held
            held, size = [], 0
    if held:
        yield held


def _blank(values: Any) -> bool:
    return isinstance(values, dict) and isinstance(values.get("text"), str) and not values["text"].strip()


def read_counts(counts: SourceCounts) -> dict[str, Any]:
    """What a unit's reading leaves in its file."""
    said = asdict(counts)
    return {name: said[name] for name in ("read", "left_out_by_where", "left_out_by_limit", "bad", "notes")}
