"""One part of a corpus, cleaned: every document kept, changed or rejected by the rules in their order, and what became of it counted."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etude.data.corpus.documents import Document
from etude.data.corpus.duplicates import Signer
from etude.data.corpus.overlap import Questions
from etude.data.corpus.plan import Plan
from etude.data.rules.contract import Rejected
from etude.lineage.durable import write_file, write_whole

SHOWN = 3
"""Samples of each kind that are kept to be shown."""
EXCERPT = 300


@dataclass
class RuleCounts:
    """What one rule did."""

    kind: str
    documents: int = 0
    """That came to it."""
    changed: int = 0
    """Of those, kept with another text."""
    rejected: dict[str, int] = field(default_factory=dict)
    """By reason."""
    changes: dict[str, int] = field(default_factory=dict)
    """What was changed inside documents, by kind."""


@dataclass
class PartCounts:
    """What became of the documents of one part. documents = rejected by rules + held by questions + kept."""

    source: int
    documents: int = 0
    bytes: int = 0
    """Of text as it was read, in UTF-8."""
    rules: list[RuleCounts] = field(default_factory=list)
    questions: dict[str, int] = field(default_factory=dict)
    """Documents left out because they hold a benchmark's question, by benchmark."""
    kept: int = 0
    kept_bytes: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    """A few kept and rejected documents, chosen by their content."""


class Cleaner:
    """The rules of a plan, opened; one a process."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._changes: list[Counter[str]] = [Counter() for _ in plan.recipe.rules]
        self._judges = [rule.judge(changes) for rule, changes in zip(plan.recipe.rules, self._changes)]
        self.questions = Questions(plan.questions, plan.recipe.overlap)
        near = plan.recipe.deduplicate.near
        self._signer = None if near is None else Signer(near)

    def clean(self, source: int, name: str, documents: Sequence[Document]) -> None:
        """Write `parts/NAME.*`: kept documents, their keys, rejected documents and, last, the counts."""
        counts = PartCounts(source, rules=[RuleCounts(rule.kind) for rule in self.plan.recipe.rules])
        kept: list[Document] = []
        digests: list[bytes] = []
        rejected: list[dict[str, Any]] = []
        samples = Samples()
        for changes in self._changes:
            changes.clear()
        for document in documents:
            counts.documents += 1
            counts.bytes += len(document.text.encode())
            text, refusal = self._judged(document.text, counts)
            place = {"source": source, "file": document.file, "row": document.row}
            digest = blake2b(text.encode(), digest_size=16).digest()
            if refusal is not None:
                rejected.append({**place, **refusal, "text": text})
                samples.add(f"{refusal['by']}: {refusal['reason']}", digest, {**place, **refusal, "text": text[:EXCERPT]})
                continue
            kept.append(Document(text, document.file, document.row))
            digests.append(digest)
            counts.kept_bytes += len(text.encode())
            samples.add("", digest, {**place, "text": text[:EXCERPT]})
        counts.kept = len(kept)
        for rule, changes in zip(counts.rules, self._changes):
            rule.changes = dict(sorted(changes.items()))
        counts.samples = samples.kept()
        self._write(name, kept, digests, rejected, counts)

    def _judged(self, text: str, counts: PartCounts) -> tuple[str, dict[str, Any] | None]:
        """The text after the rules, and why it is rejected, if it is."""
        for judge, said in zip(self._judges, counts.rules):
            said.documents += 1
            decided = judge(text)
            if not isinstance(decided, Rejected) and not decided.strip():
                decided = Rejected("nothing left")
            if isinstance(decided, Rejected):
                said.rejected[decided.reason] = said.rejected.get(decided.reason, 0) + 1
                return text, {"by": said.kind, "reason": decided.reason}
            said.changed += decided != text
            text = decided
        if (held := self.questions.held_in(text)) is not None:
            asked = held.question
            counts.questions[asked.benchmark] = counts.questions.get(asked.benchmark, 0) + 1
            reason = f"{held.by} words in a row of {asked.place}"
            return text, {"by": "benchmarks", "reason": reason}
        return text, None

    def _write(
        self, name: str, kept: list[Document], digests: list[bytes], rejected: list[dict[str, Any]], counts: PartCounts
    ) -> None:
        place = part_path(self.plan.folder, name)
        columns = {
            "text": pa.array([document.text for document in kept], pa.large_string()),
            "file": pa.array([document.file for document in kept], pa.string()),
            "row": pa.array([document.row for document in kept], pa.int64()),
        }
        write_whole(place(".parquet"), lambda path: pq.write_table(pa.table(columns), path, compression="zstd"))
        hashes = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        bands = np.zeros((len(kept), 0), np.uint64) if self._signer is None else self._signer.sign(document.text for document in kept)
        keys = np.concatenate([hashes, bands], axis=1)
        write_whole(place(".keys.npy"), lambda path: save_array(path, keys))
        write_whole(place(".rejected.gz"), lambda path: path.write_bytes(packed(rejected)))
        write_file(place(".json"), json.dumps(asdict(counts), ensure_ascii=False))


class Samples:
    """A few of each kind, those with the smallest digests: the same whoever looks, and in whatever order."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def add(self, kind: str, digest: bytes | str, shown: dict[str, Any]) -> None:
        """One more, which is kept if its digest is among the smallest."""
        key = digest.hex() if isinstance(digest, bytes) else digest
        some = self._of.setdefault(kind.partition(" words in a row of ")[0], [])
        if len(some) < SHOWN or key < some[-1][0]:
            some.append((key, shown))
            some.sort(key=lambda one: one[0])
            del some[SHOWN:]

    def kept(self) -> list[dict[str, Any]]:
        """All of them, by kind."""
        return [{"kind": kind, "digest": key, **shown} for kind, some in sorted(self._of.items()) for key, shown in some]


def part_path(folder: Path, name: str) -> Any:
    """A function from an ending to the path of a part's file."""
    return lambda ending: folder / "parts" / f"{name}{ending}"


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array under exactly this name."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def packed(rows: Sequence[dict[str, Any]]) -> bytes:
    """JSON lines, compressed; the same bytes for the same rows. Several such files one after the other are one."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return gzip.compress(lines.encode(), compresslevel=6, mtime=0) if rows else b""
