"""Which rows of a source are wanted, and how is each to be read? Columns renamed, `where` and `limit` applied, the format found."""

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from etude import catalog
from etude.data.counts import SourceCounts
from etude.data.detect import FIRST, detect
from etude.data.locate import File, locate
from etude.data.read import UNREADABLE, Row, hub, read
from etude.data.records import Record, RowError
from etude.data.render import condition, renderer
from etude.errors import DataError
from etude.recipe.data import Source

Reader = Callable[[dict[str, Any]], Record]


def wanted(source: Source, seed: int, counts: SourceCounts, only: Sequence[File] | None = None) -> Iterator[tuple[Row, Reader]]:
    """The rows that are wanted, in their order, each with the function that reads it; rows in trouble come along as they are.

    With `only`, of these files of the source alone; then there may be none, and none of them may be wanted.
    """
    rows = _where(_every(source, counts, only), source, counts, must_hold=only is None)
    return rows if source.limit is None else _limited(rows, source.limit, seed, counts)


def digest(row: Row, seed: int) -> bytes:
    """16 bytes that depend on what the row says and on the seed: not on where it stands."""
    said = json.dumps(row.values, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(said.encode(), digest_size=16, key=seed.to_bytes(16, "little", signed=True)).digest()


def parts(source: Source) -> tuple[list[Iterator[Row]], list[str]]:
    """The rows of each of its files, or of the hub's data set, as they are written there; and a line for each thing passed over."""
    if source.path.startswith("hub:"):
        return [hub(source.path, source.split)], []
    files, notes = locate(source.path)
    return [read(file) for file in files], notes


def _every(source: Source, counts: SourceCounts, only: Sequence[File] | None) -> Iterator[tuple[Row, Reader]]:
    found, notes = parts(source) if only is None else ([read(file) for file in only], [])
    for note in notes:
        counts.note(note)
    for part in found:
        rows = (_renamed(row, source) for row in part)
        first = list(islice(rows, FIRST))
        reader = _reader(source, first, counts)
        for row in chain(first, rows):
            counts.read += 1
            yield _clean(row), reader
    if not counts.read and only is None:
        raise DataError(f"{source.path}: no rows", "give a file with at least one row")


def _reader(source: Source, rows: list[Row], counts: SourceCounts) -> Reader:
    first = [row.values for row in rows if isinstance(row.values, dict)]
    if first:
        columns = list(dict.fromkeys(str(name) for row in first for name in row))
        missing = [theirs for theirs, ours in source.columns.items() if ours not in columns]
        if missing:
            raise DataError(f"{source.path}: `columns` renames {missing[0]!r}, which is not there", f"its columns are {', '.join(columns)}")
        if any(ending in rows[0].source.lower() for ending in (".csv", ".tsv")):
            numeric = [name for name in columns if any(isinstance(row.get(name), int) for row in first)]
            counts.note(f"{source.path}: read as whole numbers: {', '.join(numeric) or 'no column'}; every other cell is text")
    if source.render is not None:
        return renderer(source.render, source.path)
    if source.format != "auto":
        return catalog.find("format", source.format)().record
    if not first:
        return _never
    found = detect(first, source.path)
    counts.note(found.reason)
    return found.format.record


def _never(row: dict[str, Any]) -> Record:
    raise RowError(
        UNREADABLE, f"{', '.join(map(str, row))}: the first {FIRST} rows are unreadable, so the format is not known", "set `format:`"
    )


def _renamed(row: Row, source: Source) -> Row:
    if not source.columns or not isinstance(row.values, dict):
        return row
    renamed = {source.columns.get(name, name): value for name, value in row.values.items()}
    if len(renamed) < len(row.values):
        lost = next(ours for theirs, ours in source.columns.items() if theirs in row.values)
        problem = RowError(UNREADABLE, f"`columns` gives two columns the name {lost!r}", "rename the other one as well")
        return Row(row.source, row.number, problem)
    return Row(row.source, row.number, renamed)


def _clean(row: Row) -> Row:
    """Half of a surrogate pair is no text: tokenizers refuse it, and so do files."""
    if isinstance(row.values, dict):
        try:
            json.dumps(row.values, sort_keys=True, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            problem = RowError(UNREADABLE, f"half a character: {error.reason}", "write the row again as UTF-8")
            return Row(row.source, row.number, problem)
        except (TypeError, ValueError, RecursionError) as error:
            problem = RowError(UNREADABLE, f"values that cannot be written down: {error}", "write the row again as JSON")
            return Row(row.source, row.number, problem)
    return row


def _where(
    rows: Iterator[tuple[Row, Reader]], source: Source, counts: SourceCounts, must_hold: bool
) -> Iterator[tuple[Row, Reader]]:
    if source.where is None:
        yield from rows
        return
    holds = condition(source.where, source.path)
    any_left, last = False, None
    for row, reader in rows:
        if not isinstance(row.values, dict):
            yield row, reader
            continue
        last = row.values
        try:
            if not holds(row.values):
                counts.left_out_by_where += 1
                continue
        except RowError as error:
            row = Row(row.source, row.number, error)
        any_left = True
        yield row, reader
    if must_hold and not any_left and last is not None:
        shown = ", ".join(f"{name}={value!r:.40}" for name, value in last.items())
        raise DataError(f"{source.path}: `where: {source.where}` is true for none of {counts.read} rows", f"the last row was {shown}")


def _limited(rows: Iterator[tuple[Row, Reader]], limit: int, seed: int, counts: SourceCounts) -> Iterator[tuple[Row, Reader]]:
    """The rows with the smallest digests: the same ones wherever they stand in the file, and nearly the same when rows are added."""
    held: list[tuple[int, int, Row, Reader]] = []  # a heap, from whose top the row with the largest digest goes when one more comes
    good = 0
    for row, reader in rows:
        if not isinstance(row.values, dict):
            yield row, reader
            continue
        good += 1
        one = (-int.from_bytes(digest(row, seed), "big"), -good, row, reader)
        if len(held) < limit:
            heapq.heappush(held, one)
        else:
            heapq.heappushpop(held, one)
    counts.left_out_by_limit += good - len(held)
    for _, _, row, reader in sorted(held, key=lambda one: -one[1]):
        yield row, reader
