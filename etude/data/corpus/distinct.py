"""Which of all cleaned documents are duplicates, and of which? The one step that looks at the whole corpus, by its keys alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etude.data.corpus.clean import part_path
from etude.data.corpus.duplicates import equal, joined
from etude.data.corpus.plan import Plan
from etude.lineage.durable import write_whole

FILE = "duplicates.parquet"


@dataclass(frozen=True, slots=True)
class Part:
    """A cleaned part, and which documents of the whole corpus are in it."""

    name: str
    source: int
    first: int
    count: int


def parts(plan: Plan) -> list[Part]:
    """Every cleaned part, in the order of the corpus."""
    found: list[Part] = []
    first = 0
    for number, unit in enumerate(plan.units):
        made = json.loads((plan.folder / "units" / f"{number:06d}.json").read_text())["parts"]
        for part in range(made):
            name = part_name(number, part)
            count = len(np.load(part_path(plan.folder, name)(".keys.npy"), mmap_mode="r", allow_pickle=False))
            found.append(Part(name, unit.source, first, count))
            first += count
    return found


def part_name(unit: int, part: int) -> str:
    """What a part's files are called."""
    return f"{unit:06d}-{part:05d}"


def find_duplicates(plan: Plan) -> None:
    """Write `duplicates.parquet`: each duplicate's number, what kind it is, and where the document lies that is kept instead."""
    path = plan.folder / FILE
    if path.exists():
        return
    all_parts = parts(plan)
    count = sum(part.count for part in all_parts)

    def column(*numbers: int) -> np.ndarray:
        out = np.empty((count, len(numbers)), np.uint64)
        for part in all_parts:  # one map at a time: a process may hold only so many files open
            keys = np.load(part_path(plan.folder, part.name)(".keys.npy"), mmap_mode="r", allow_pickle=False)
            out[part.first : part.first + part.count] = keys[:, list(numbers)]
        return out

    own = np.arange(count)
    deduplicate = plan.recipe.deduplicate
    exact = equal(column(0, 1)) if deduplicate.exact else own
    first = exact
    if deduplicate.near is not None:

        def groups() -> Iterator[np.ndarray]:
            yield exact
            for bucket in range(deduplicate.near.buckets):  # type: ignore[union-attr]
                yield equal(column(2 + bucket))

        first = joined(groups(), count)
    members = np.flatnonzero(first != own)
    table = {
        "document": pa.array(members),
        "exact": pa.array(exact[members] != members),
        **_places(plan, all_parts, first[members]),
    }
    write_whole(path, lambda aside: pq.write_table(pa.table(table), aside))


def _places(plan: Plan, all_parts: list[Part], documents: np.ndarray) -> dict[str, pa.Array]:
    """File and row of documents by their numbers; only the parts that hold some are read."""
    files: list[str] = [""] * len(documents)
    rows = np.zeros(len(documents), np.int64)
    order = np.argsort(documents, kind="stable")
    ends = np.searchsorted(documents, [part.first + part.count for part in all_parts], sorter=order).tolist()
    for part, begin, end in zip(all_parts, [0, *ends], ends):
        if begin == end:
            continue
        table = pq.read_table(part_path(plan.folder, part.name)(".parquet"), columns=["file", "row"])
        names, places = table.column("file").to_pylist(), table.column("row").to_numpy()
        for at in order[begin:end].tolist():
            inside = int(documents[at]) - part.first
            files[at], rows[at] = names[inside], places[inside]
    return {"file": pa.array(files, pa.string()), "row": pa.array(rows)}


def duplicates_of(folder: Path, part: Part) -> dict[int, tuple[bool, str, int]]:
    """The duplicates in one part: place in it → whether exact, and file and row of the one that is kept."""
    inside = [("document", ">=", part.first), ("document", "<", part.first + part.count)]
    table = pq.read_table(folder / FILE, filters=inside).to_pylist() if part.count else []
    return {one["document"] - part.first: (one["exact"], one["file"], one["row"]) for one in table}
