"""Which stages are unfinished? Their working folders: checkpoints and metrics, kept until the artefact is published."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, Field

from etude.errors import LineageError
from etude.lineage.durable import folder_size, remove_tree, write_file
from etude.lineage.lock import is_locked, locked
from etude.lineage.record import Frozen, Hash, Name, Parent, Record

DESCRIPTION = "run.json"
LOCK = "lock"


class Run(Frozen):
    """An unfinished stage."""

    folder: Path = Field(exclude=True)
    """Where it works; everything below it is its own."""
    name: Name
    """Of the artefact it will be."""
    identity: Hash
    """Of the stage: the same command finds the same folder, and so resumes."""
    stage: str
    """Its name in the recipe."""
    parent: str
    """Reference of what it starts from."""
    started: AwareDatetime
    """When it began first."""


class Runs:
    """The working folders of one project.

    Args:
        folder: `runs/`.
        changes: the lock under which things begin to stand on others, or go.
        records: the published artefacts.
    """

    def __init__(self, folder: Path, changes: Path, records: Callable[[], list[Record]]):
        self.folder, self.changes, self.records = folder, changes, records
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str, identity: str) -> Path:
        """The folder in which a stage works, whether it has begun or not."""
        return self.folder / f"{name}-{identity[:12]}"

    @contextmanager
    def open(self, name: str, identity: str, stage: str, parent: Parent) -> Iterator[Run]:
        """Work on a stage: its folder, new or as it was left, locked while the block runs.

        Look for the finished artefact (`Store.find`) inside the block: another process may have published it just before.

        Raises:
            LineageError: another process works on it, or its parent was removed.
        """
        folder = self.place(name, identity)
        with locked(folder / LOCK, f"{name} ({folder})"):
            with locked(self.changes, "the project", wait=60):
                if parent.kind == "artefact" and all(r.reference != parent.reference for r in self.records()):
                    raise LineageError(f"{name}: its parent {parent.reference} is gone", "run its stage again")
                if not (folder / DESCRIPTION).exists():
                    run = Run(folder=folder, name=name, identity=identity, stage=stage, parent=parent.reference, started=datetime.now(UTC))
                    write_file(folder / DESCRIPTION, run.model_dump_json(indent=2) + "\n")
            yield self._read(folder)

    def _read(self, folder: Path) -> Run:
        try:
            return Run(folder=folder, **json.loads((folder / DESCRIPTION).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise LineageError(f"{folder / DESCRIPTION}: cannot be read: {error}", f"remove {folder} to start that stage again") from error

    def all(self) -> tuple[list[Run], list[Path]]:
        """Every unfinished run, oldest first; and the folders in which nothing readable says which run they are."""
        runs: list[Run] = []
        strays: list[Path] = []
        for folder in sorted(p for p in self.folder.glob("[!.]*") if p.is_dir()):
            try:
                runs.append(self._read(folder))
            except LineageError:
                strays.append(folder)
        return sorted(runs, key=lambda run: run.started), strays

    def remove(self, folder: Path) -> int:
        """Let a run's folder go, because its artefact is published or it is given up; bytes set free.

        Call it inside `open`'s block for one's own run.
        """
        freed = folder_size(folder)
        remove_tree(folder)
        return freed

    def step(self, folder: Path) -> int:
        """The step of a run's newest checkpoint; 0 where it has none."""
        numbers = (path.name.split("-")[1] for path in folder.glob("checkpoints/step-*"))
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def touched(self, folder: Path) -> datetime:
        """When a run was last worked on, as its files tell."""
        times = []
        for path in (*folder.glob("*"), *folder.glob("checkpoints/*")):
            with suppress(FileNotFoundError):  # a process at work may be removing it
                times += [path.stat().st_mtime] if not path.name.startswith(LOCK) else []
        return datetime.fromtimestamp(max(times, default=folder.stat().st_mtime), UTC)

    def active(self, folder: Path) -> bool:
        """Whether a process works in a run's folder now."""
        return is_locked(folder / LOCK)
