"""How is a text that stands alone divided? Into stretches, as if each were a row, with something left out between neighbours."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from etude.data.counts import SourceCounts
from etude.data.read import Row
from etude.data.records import RowError, Text
from etude.data.sources import Reader, wanted
from etude.recipe.data import Data, Source

MOST, SHORTEST = 200, 2000
"""Stretches at most, and characters of each at least."""
GAP = 200
"""Characters left out at the end of each stretch, up to the next line's end, so that no sentence stands on both sides of the division."""


def rows_wanted(data: Data, source: Source, seed: int, counts: SourceCounts) -> Iterator[tuple[Row, Reader]]:
    """The rows of a source. A text that is all there is becomes several, where some of it is to be held out."""
    rows = wanted(source, seed, counts)
    divides = len(data.sources) == 1 and not isinstance(data.held_out, Source) and data.held_out > 0 and source is data.sources[0]
    if not divides:
        return rows
    first = list(islice(rows, 2))
    if len(first) == 1 and (text := _text(*first[0])) is not None and len(stretches := stretched(text)) > 1:
        row, reader = first[0]
        left = len(text) - sum(map(len, stretches))
        counts.read = len(stretches)
        counts.stretches = len(stretches)
        counts.note(f"one text, divided into {len(stretches)} stretches that count as rows; {left:,} characters between them are left out")
        return iter([(Row(row.source, number, {"text": piece}), reader) for number, piece in enumerate(stretches, 1)])
    return chain(first, rows)


def stretched(text: str) -> list[str]:
    """Stretches of like length without the gaps between them, from line to line; the text itself where it is too short for two."""
    size = max(SHORTEST, -(-len(text) // MOST))
    found, at = [], 0
    while at < len(text):
        stop = text.find("\n", at + size)
        stop = len(text) if stop < 0 or len(text) - stop < SHORTEST else stop + 1
        last = stop == len(text)
        found.append(text[at : stop if last else _end(text, at, stop - GAP)])
        at = stop
    return found


def _end(text: str, at: int, gap: int) -> int:
    """Where a stretch from `at` ends: with the last line before the gap, or where that leaves out more than half of it, the last word."""
    for mark in ("\n", " "):
        if (end := text.rfind(mark, at, gap) + 1) - at > (gap - at) / 2:
            return end
    return gap


def _text(row: Row, reader: Reader) -> str | None:
    if isinstance(row.values, RowError):
        return None
    values: dict[str, Any] = row.values
    if set(values) != {"text"}:
        return None
    try:
        record = reader(values)
    except RowError:  # said where the row is read
        return None
    return record.text if isinstance(record, Text) else None
