"""What is to be prepared, cut into pieces that any process can take: units of files, and from them parts of documents."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.locate import File, locate
from etude.data.questions import Question
from etude.lineage.durable import write_file
from etude.lineage.fingerprint import fingerprint
from etude.recipe.corpus import Corpus
from etude.recipe.data import Source

UNIT = 256 * 2**20
"""Bytes of input files that are read by one process where several machines read; a larger file is one unit."""
PART = 4 * 2**20
"""Characters of text that are cleaned, and later tokenised, at once; what an interruption loses at most."""
ARITHMETIC = 2
"""Raised when the same recipe on the same text begins to give another corpus."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Some files of one source, in their order."""

    source: int
    """Its number among the sources."""
    files: tuple[tuple[str, str], ...]
    """Path and name of each; none of a data set of the hub."""
    size: int
    """Bytes of the files, as far as they are known."""


@dataclass(frozen=True)
class Writing:
    """The tokenizer, in a form that a process can be given."""

    backend: str
    """The fast tokenizer as JSON."""
    sha256: str
    reference: str
    lead: tuple[int, ...]
    """What stands before every text."""
    end: int
    """What stands behind every text."""
    vocabulary: int
    """Every token's number is below this."""


@dataclass(frozen=True)
class Plan:
    """All that decides what a corpus becomes. It is written into the working folder, from where every process reads it."""

    recipe: Corpus
    folder: Path
    """Where parts lie until they are gathered."""
    units: tuple[Unit, ...]
    inputs: tuple[dict[str, Any], ...]
    """Every file with its size, kind and sha256, and every data set of the hub with its revision, for the manifest."""
    questions: tuple[Question, ...]
    writing: Writing
    versions: dict[str, str]
    """Of the packages whose decisions are in the result."""
    notes: tuple[str, ...]
    """What was passed over while the files were found."""

    @cached_property
    def identity(self) -> str:
        """Equal identities give the same bytes: 64 hexadecimal digits."""
        said = {key: value for key, value in self.recipe.model_dump(mode="json").items() if key not in ("name", "tokenizer")}
        for place in (*said["sources"], *said["benchmarks"]):
            if not place["path"].startswith("hub:"):
                del place["path"]  # where a file lies does not matter: its content is in `inputs`
        content = [{key: one.get(key) for key in ("source", "kind", "bytes", "sha256", "changed", "revision")} for one in self.inputs]
        questions = [(question.row, question.text) for question in self.questions]
        writing = {key: value for key, value in asdict(self.writing).items() if key not in ("backend", "reference")}
        cut = {"unit": UNIT, "part": PART}  # parts of another size, left by an interruption, must not be taken for ours
        read = {"inputs": content, "questions": questions}
        return fingerprint({"arithmetic": ARITHMETIC, "cut": cut, "recipe": said, **read, "writing": writing, "by": self.versions})

    def save(self) -> None:
        """Write it where `read_plan` finds it."""
        said = {
            "recipe": self.recipe.model_dump(mode="json"),
            "units": [asdict(unit) for unit in self.units],
            "inputs": list(self.inputs),
            "questions": [asdict(question) for question in self.questions],
            "writing": asdict(self.writing),
            "versions": self.versions,
            "notes": list(self.notes),
        }
        write_file(self.folder / "plan.json", json.dumps(said, ensure_ascii=False))


def read_plan(folder: Path, tables: Any) -> Plan:
    """The plan that was saved in a working folder."""
    said = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return Plan(
        recipe=Corpus.model_validate(said["recipe"], context={"tables": tables}),
        folder=folder,
        units=tuple(Unit(one["source"], tuple((path, name) for path, name in one["files"]), one["size"]) for one in said["units"]),
        inputs=tuple(said["inputs"]),
        questions=tuple(Question(**one) for one in said["questions"]),
        writing=Writing(**(said["writing"] | {"lead": tuple(said["writing"]["lead"])})),
        versions=said["versions"],
        notes=tuple(said["notes"]),
    )


def units_of(sources: Sequence[Source]) -> tuple[list[Unit], list[tuple[int, File]], list[str]]:
    """The units of all sources, every file with its source's number, and a line for each thing passed over."""
    units: list[Unit] = []
    files: list[tuple[int, File]] = []
    notes: list[str] = []
    for number, source in enumerate(sources):
        if source.path.startswith("hub:"):
            units.append(Unit(number, (), 0))
            continue
        found, passed = locate(source.path)
        notes += passed
        files += [(number, file) for file in found]
        if source.limit is not None:
            units.append(_unit(number, found))  # rows are chosen among those of all its files
        else:
            units += [_unit(number, some) for some in _grouped(found)]
    return units, files, notes


def _unit(source: int, files: Sequence[File]) -> Unit:
    return Unit(source, tuple((file.place, file.name) for file in files), sum(file.size or 0 for file in files))


def _grouped(files: Sequence[File]) -> Iterator[list[File]]:
    some: list[File] = []
    size = 0
    for file in files:
        more = file.size or 0
        if some and size + more > UNIT:
            yield some
            some, size = [], 0
        some.append(file)
        size += more
    if some:
        yield some
