"""A cleaned copy of a file of rows, in its own format: rows left out, texts mended, and a list of what went and why."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.data.checks.contract import Finding
from etude.data.locate import COMPRESSED, TEXTS, File
from etude.data.read import Row, read
from etude.data.records import RowError
from etude.errors import DataError
from etude.lineage.durable import write_whole


@dataclass(frozen=True, slots=True)
class Mended:
    """What was written."""

    file: Path
    """The cleaned copy."""
    listed: Path
    """What went, what was mended, and why: a JSON object on each line."""
    kept: int
    removed: int
    repaired: int
    """Of the kept rows, those in which a text was mended."""
    unrepaired: int
    """Rows whose text stands in no column as it is rendered, and so could not be mended."""


@dataclass(slots=True)
class _Plan:
    """By row number."""

    reasons: dict[int, tuple[str, str]]
    repairs: dict[int, dict[str, tuple[str, str]]]
    done: set[int]

    def mended(self, number: int, value: Any) -> Any:
        """The same value with every text replaced that is to be mended."""
        wanted = self.repairs.get(number)
        if not wanted:
            return value
        if isinstance(value, str) and value in wanted:
            self.done.add(number)
            return wanted[value][0]
        if isinstance(value, dict):
            return {name: self.mended(number, inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mended(number, inner) for inner in value]
        return value


def mend(file: File, out: Path, found: Sequence[Finding]) -> Mended:
    """Write a copy of `file` without the rows that findings drop and with the texts that they repair.

    Raises:
        DataError: `out` or the list beside it is there already, or would be of another format.
    """
    listed = out.with_name(f"{out.name}.removed.jsonl")
    for path in (out, listed):
        if path.exists():
            raise DataError(f"{path} exists already", "name another file: nothing is overwritten")
    if out.suffix.lower() != file.suffix:
        bare = out.with_suffix("") if out.suffix.lower() in COMPRESSED else out
        what = f"{out}: a cleaned copy of {file.name} is written in its own format, unpacked"
        raise DataError(what, f"name it {bare.stem}{file.suffix}")
    if file.suffix in TEXTS:
        raise DataError(f"{file.name}: a text is one row, which cannot be left out of itself", "mend it in an editor, by the findings")
    plan = _plan(file, found)
    rows = list(read(file))
    # What cannot be read cannot be written either; a finding has said so.
    left = [(row.number, row.values) for row in rows if row.number not in plan.reasons and isinstance(row.values, dict)]
    if not left:
        raise DataError(f"{file.name}: no row would be left", "look at the findings; mend the export rather than the file")
    out.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        write_whole(out, lambda aside: _parquet(file, aside, plan))
    else:
        write = {".json": _list, ".csv": _table, ".tsv": _tabbed}.get(file.suffix, _lines)
        write_whole(out, lambda aside: write([plan.mended(number, values) for number, values in left], aside))
    write_whole(listed, lambda aside: aside.write_text("".join(_listed(rows, plan)), encoding="utf-8"))
    return Mended(out, listed, len(left), len(rows) - len(left), len(plan.done), len(plan.repairs.keys() - plan.done))


def _plan(file: File, found: Sequence[Finding]) -> _Plan:
    reasons: dict[int, tuple[str, str]] = {}
    repairs: dict[int, dict[str, tuple[str, str]]] = {}
    for finding in found:
        for place in finding.drop:
            if place.source == file.name:
                reasons.setdefault(place.row, (finding.kind, finding.what))
        for repair in finding.repairs:
            if repair.place.source == file.name:
                texts = repairs.setdefault(repair.place.row, {})
                earlier = texts.get(repair.old)
                new = repair.new if earlier is None else _both(repair.old, earlier[0], repair.new)
                texts[repair.old] = (new, finding.kind)
    return _Plan(reasons, {row: texts for row, texts in repairs.items() if row not in reasons}, set())


def _both(old: str, one: str, other: str) -> str:
    """A text that two findings mend: one takes characters out wherever they are, the other the white space around it."""
    return (other if one == old.strip() else one).strip()


def _listed(rows: list[Row], plan: _Plan) -> Iterator[str]:
    for row in rows:
        if row.number in plan.reasons:
            kind, why = plan.reasons[row.number]
            values = str(row.values) if isinstance(row.values, RowError) else row.values
            said: dict[str, Any] = {"row": row.number, "removed": kind, "why": why, "values": values}
        elif row.number in plan.done:
            changes = [{"finding": kind, "old": old, "new": new} for old, (new, kind) in plan.repairs[row.number].items()]
            said = {"row": row.number, "repaired": changes}
        else:
            continue
        yield json.dumps(said, ensure_ascii=True, default=str) + "\n"


def _lines(rows: list[dict[str, Any]], out: Path) -> None:
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _list(rows: list[dict[str, Any]], out: Path) -> None:
    out.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _tabbed(rows: list[dict[str, Any]], out: Path) -> None:
    _table(rows, out, "\t")


def _table(rows: list[dict[str, Any]], out: Path, delimiter: str = ",") -> None:
    with out.open("w", encoding="utf-8", newline="") as copy:
        writer = csv.writer(copy, delimiter=delimiter, lineterminator="\n")
        writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])


def _parquet(file: File, out: Path, plan: _Plan) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    if file.compression:
        raise DataError(f"{file.name}: Parquet packed once more cannot be rewritten", "unpack it first")
    table = pq.read_table(file.path)
    if plan.repairs:
        rows = [plan.mended(number, row) for number, row in enumerate(table.to_pylist(), 1)]
        table = pa.Table.from_pylist(rows, schema=table.schema)
    pq.write_table(table.filter(pa.array([number not in plan.reasons for number in range(1, table.num_rows + 1)])), out)
