"""Which questions does a benchmark ask? Read from its files or from the hub, each with its place, for what must not be trained on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from etude.data.counts import SourceCounts
from etude.data.records import RowError
from etude.data.sources import parts
from etude.errors import DataError
from etude.recipe.corpus import Benchmark
from etude.recipe.data import Source

COLUMNS = ("question", "prompt", "text", "input", "instruction", "query")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark."""

    benchmark: str
    """As it was named: perhaps a pattern of many files."""
    file: str
    row: int
    text: str

    @property
    def place(self) -> str:
        """In words."""
        return f"{self.file}:{self.row}"


def read_questions(benchmarks: Iterable[Benchmark]) -> list[Question]:
    """Every question of every benchmark.

    Raises:
        DataError: a file cannot be read, or a row holds no question.
    """
    asked: list[Question] = []
    for benchmark in benchmarks:
        counts = SourceCounts(benchmark.path)
        for rows in parts(Source(path=benchmark.path, split=benchmark.split))[0]:
            for row in rows:
                counts.read += 1
                if isinstance(row.values, RowError):
                    raise row.values.at(row.source, row.number)
                texts = _texts(row.values, benchmark.columns)
                if not texts:
                    held = ", ".join(map(str, row.values)) or "no columns"
                    remedy = f"call one of them {', '.join(COLUMNS)}, or name it in a corpus recipe: `{{path: …, columns: [question]}}`"
                    raise DataError(f"{row.source}:{row.number}: no question in its columns ({held})", remedy)
                asked += [Question(benchmark.path, row.source, row.number, text) for text in texts]
        if not counts.read:
            raise DataError(f"{benchmark.path}: no questions", "give a file with at least one row")
    return asked


def _texts(row: dict[str, Any], columns: list[str]) -> list[str]:
    said = lambda name: isinstance(row.get(name), str) and row[name].strip()
    if columns:
        return [row[name] for name in columns if said(name)]
    if (name := next(filter(said, COLUMNS), None)) is not None:
        return [row[name]]
    turns = row.get("messages")
    first = turns[0].get("content") if isinstance(turns, list) and turns and isinstance(turns[0], dict) else None
    return [first] if isinstance(first, str) and first.strip() else []
