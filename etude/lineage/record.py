"""What is known about an artefact: the record that lies beside its weights as `etude.json`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from etude.errors import LineageError
from etude.lineage.fingerprint import RECORD, canonical, decides, fingerprint

FORMAT = 1
"""Of the record; raised when an older etude could not read a newer record."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=200)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Does not change, knows its keys, explains its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Parent(Frozen):
    """What an artefact was made from."""

    kind: Literal["artefact", "base"]
    """Of this project, or brought from outside."""
    reference: str
    """`name@version`, or where the base came from: a hub id, folder, file, `package:module/file`."""
    fingerprint: Hash
    """Of its weights and configuration, by content."""


class Machine(Frozen):
    """Where it was made: the same weights to the bit can be expected only on the same."""

    system: str
    """Operating system and release."""
    processor: str
    """The CPU's own name."""
    cores: PositiveInt
    """Logical cores."""
    memory: int | None
    """Bytes of main memory; null where the system does not tell."""
    device: str
    """What computed: `cpu`, or the accelerator's name."""
    threads: PositiveInt
    """Threads of one operation: another number gives other bits."""
    processes: PositiveInt = 1
    """Processes that trained together."""


class Fingerprints(Frozen):
    """The inputs, in short."""

    data: Hash
    """Of the rows that were read."""
    base: Hash
    """Of the base at the root of the line, by content."""
    stage: Hash
    """Of the stage's section of the resolved recipe."""


class File(Frozen):
    """One file of an artefact."""

    sha256: Hash
    """Of its bytes."""
    bytes: int
    """Its size."""


class Draft(Frozen):
    """All that the maker of an artefact knows about it; the store adds the version and the files."""

    name: Name
    """What users call it."""
    kind: Literal["adapter", "model", "base"]
    """An adapter on its parent, a whole model, or a base as it came."""
    identity: Hash
    """Equal for stages that would give the same result; `stage_identity` makes it."""
    parent: Parent | None
    """What it was made from; null only for a base."""
    stage: str
    """The stage's name in the recipe."""
    recipe: dict[str, Any]
    """The whole recipe, resolved: run again, it makes this artefact."""
    fingerprints: Fingerprints
    """Of its inputs."""
    versions: dict[str, str]
    """Of etude, Python and the libraries whose arithmetic it is."""
    seed: int
    """Of order, split and initial adapter."""
    machine: Machine
    """Where it was made."""
    metrics: dict[str, float | int | str | None]
    """Headline numbers by name, at the end."""
    counts: dict[str, int]
    """Rows, tokens (logical, computed, supervised), what was dropped, steps."""
    started: AwareDatetime
    """When the first step of the stage began."""
    finished: AwareDatetime
    """When the artefact was complete."""


class Record(Draft):
    """A draft that was published."""

    format: Literal[1] = FORMAT
    """Of this record."""
    version: PositiveInt
    """Counted up for each name, never given twice."""
    files: dict[str, File]
    """By path within the artefact's folder; the record itself is not among them."""

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def size(self) -> int:
        """Bytes on disk, without the record."""
        return sum(file.bytes for file in self.files.values())

    @property
    def fingerprint(self) -> str:
        """By content: its own weights and configuration, over its parent's. Names and reports do not count."""
        content = {path: file.sha256 for path, file in self.files.items() if decides(path)}
        return fingerprint({"files": content, "parent": self.parent.fingerprint if self.parent else None})

    @property
    def duration(self) -> float:
        """Seconds from start to finish."""
        return (self.finished - self.started).total_seconds()

    def to_json(self) -> str:
        """Indented JSON in reading order.

        Raises:
            LineageError: a value (a metric that is NaN, say) that JSON cannot hold, with its path.
        """
        fields = self.model_dump(mode="python")
        dates = {key: value.isoformat() for key, value in fields.items() if isinstance(value, datetime)}
        ordered = {"format": self.format, "name": self.name, "version": self.version, **fields, **dates}
        canonical(ordered, what=RECORD)
        return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"


def read_record(folder: Path) -> Record:
    """The record of the artefact in `folder`.

    Raises:
        LineageError: it is missing, damaged, or of a newer format.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LineageError(f"{path}: the record is missing", "restore it from a backup, or remove the folder") from None
    except (ValueError, OSError) as error:
        raise LineageError(f"{path}: the record cannot be read: {error}", "restore it from a backup, or remove the folder") from error
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise LineageError(f"{path}: record format {written}; this etude knows up to {FORMAT}", "upgrade etude")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LineageError(f"{path}: the record is damaged: {where}", "restore it from a backup, or remove the folder") from error
