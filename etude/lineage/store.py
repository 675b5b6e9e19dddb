"""What has been made, under which name and version? Publishes artefacts whole, finds them, names them, lets them go."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from safetensors import SafetensorError

from etude.errors import LineageError
from etude.lineage.durable import folder_size, lacking, leftovers, new_aside, remove_tree, settle, write_file
from etude.lineage.fingerprint import RECORD, fingerprint_file
from etude.lineage.index import Index
from etude.lineage.lock import locked
from etude.lineage.project import make_project
from etude.lineage.record import Draft, File, Parent, Record
from etude.lineage.runs import Runs
from etude.lineage.tree import Branch, ancestors, branch, children

NEWEST = "newest"
_ROOM = "make room with `etude clean`, or mend the disk, and give the same command again: what was trained is kept"


@dataclass(frozen=True)
class Shown:
    """An artefact with its family."""

    record: Record
    """What is known about it."""
    folder: Path
    """Where it lies."""
    aliases: list[str]
    """Names that point at this version."""
    ancestors: list[Record]
    """Parent, grandparent …"""
    descendants: tuple[Branch, ...]
    """What was made from it, and from that."""


class Store:
    """One project's artefacts, runs and bases.

    Layout: `artefacts/NAME/VERSION/` (weights in Hugging Face or peft layout with `etude.json` beside them),
    `artefacts/NAME/aliases/ALIAS`, `artefacts/NAME/removed/VERSION.json`, `runs/`, `bases/NAME/`, `index.sqlite`.

    Args:
        root: the `.etude` folder. Leftovers of processes that are gone are removed, and said in `notes`.
    """

    def __init__(self, root: Path):
        self.root, self.artefacts, self.bases = root, root / "artefacts", root / "bases"
        for folder in (self.artefacts, self.bases):
            folder.mkdir(parents=True, exist_ok=True)
        self.index = Index(root / "index.sqlite", self.artefacts)
        self.runs = Runs(root / "runs", root / "changes.lock", self.records)
        for parent in (*self.artefacts.iterdir(), *(root / name for name in ("bases", "runs", "comparisons", "frontiers"))):
            for left in leftovers(parent):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
                self.index.say(f"removed {left}: left half done by a process that ended")

    @property
    def notes(self) -> list[str]:
        """What was mended, cleaned or left out so far; print it."""
        return self.index.notes

    def records(self) -> list[Record]:
        """Every artefact, the latest finished first."""
        return sorted(self.index.records(), key=lambda r: (r.finished, r.name, r.version), reverse=True)

    def folder(self, record: Record) -> Path:
        """Where an artefact's files lie."""
        return self.artefacts / record.name / str(record.version)

    def publish(self, draft: Draft, write: Callable[[Path], None], room: int = 0) -> Record:
        """Make an artefact visible, whole, as the next version of its name.

        Args:
            draft: what is known about it.
            write: writes the files into the empty folder it is given; not the record.
            room: bytes that it will need, so that a full disk is seen before it is.

        Raises:
            LineageError: nothing was written, the record cannot be written as JSON, or the disk refused; nothing is visible then.
        """
        home = self.artefacts / draft.name
        if figures := lacking(home, room):
            raise LineageError(f"no room for {draft.name}: {figures}", _ROOM)
        aside = new_aside(home)
        try:
            write(aside)
            paths = sorted(p for p in aside.rglob("*") if p.is_file())
            files = {p.relative_to(aside).as_posix(): File(sha256=fingerprint_file(p), bytes=p.stat().st_size) for p in paths}
            if not files or RECORD in files:
                written = f"{RECORD} was" if files else "no files were"
                raise LineageError(f"{draft.name}: {written} written", "write the weights; the record is the store's")
            version = self._next_version(draft.name)
            while True:
                record = Record(**dict(draft), version=version, files=files)
                (aside / RECORD).write_text(record.to_json(), encoding="utf-8")
                try:
                    settle(aside, home / str(version))
                    return record
                except FileExistsError:  # another process was faster
                    version += 1
        except (OSError, SafetensorError) as error:
            raise LineageError(f"{home}: could not be written: {error}", _ROOM) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _next_version(self, name: str) -> int:
        home = self.artefacts / name
        given = [int(p.stem) for p in (*home.iterdir(), *(home / "removed").glob("*.json")) if p.stem.isdigit()]
        return max(given, default=0) + 1

    def resolve(self, reference: str) -> Record:
        """The artefact that `name`, `name@version`, `name@newest` or `name@alias` stands for; a bare name is its newest version.

        Raises:
            LineageError: no such name, version or alias; the nearest ones are suggested.
        """
        name, _, wanted = reference.partition("@")
        records = self.index.records()
        versions = {r.version: r for r in records if r.name == name}
        if not versions:
            names = sorted({r.name for r in records})
            near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:5]
            remedy = f"did you mean {', '.join(near)}?" if near else "nothing was made here yet; `etude run` makes one"
            raise LineageError(f"no artefact {name!r} in {self.root}", remedy)
        if wanted in ("", NEWEST):
            return versions[max(versions)]
        aliases = self.aliases(name)
        number = int(wanted) if wanted.isdigit() else aliases.get(wanted)
        if number in versions:
            return versions[number]
        known = ", ".join(f"{name}@{v}" for v in (*sorted(versions), *aliases))
        gone = self.artefacts / name / "removed" / f"{wanted}.json"
        raise LineageError(f"no artefact {reference!r} in {self.root}{': it was removed' if gone.exists() else ''}", f"there are {known}")

    def find(self, identity: str) -> Record | None:
        """The finished artefact of an unchanged stage, or None: the newest whose files are all there in their sizes.

        Ones whose files are not are passed over and said in `notes`.
        """
        for record in self.records():
            if record.identity == identity:
                if not (problems := self._missing(record)):
                    return record
                self.index.say(f"{record.reference} is passed over: {'; '.join(problems)}")
        return None

    def _missing(self, record: Record) -> list[str]:
        problems = []
        for path, file in record.files.items():
            at = self.folder(record) / path
            if not at.is_file():
                problems.append(f"{at} is missing")
            elif at.stat().st_size != file.bytes:
                problems.append(f"{at} has {at.stat().st_size} bytes instead of {file.bytes}")
        return problems

    def verify(self, reference: str) -> list[str]:
        """What is wrong with an artefact's files, read whole: missing, other size, other content, unknown; empty where all is well."""
        record = self.resolve(reference)
        folder, problems = self.folder(record), self._missing(record)
        for path, file in record.files.items():
            at = folder / path
            if at.is_file() and at.stat().st_size == file.bytes and fingerprint_file(at) != file.sha256:
                problems.append(f"{at} has another content than when it was published")
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        return problems + [f"{folder / path} was added later" for path in sorted(there - {*record.files, RECORD})]

    def show(self, reference: str) -> Shown:
        """An artefact with its folder, aliases, ancestors and descendants."""
        record, records = self.resolve(reference), self.index.records()
        names = [alias for alias, version in self.aliases(record.name).items() if version == record.version]
        return Shown(record, self.folder(record), names, ancestors(record, records), branch(record, records).children)

    def parent(self, reference: str) -> Parent:
        """An artefact as the parent of the next stage."""
        record = self.resolve(reference)
        return Parent(kind="artefact", reference=record.reference, fingerprint=record.fingerprint)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias → version of one name, sorted."""
        folder = self.artefacts / name / "aliases"
        return {p.name: int(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("[!.]*"))}

    def set_alias(self, reference: str, alias: str) -> Record:
        """Point `alias` (`production`, say) at an artefact; it moves if it pointed elsewhere.

        Raises:
            LineageError: no such artefact, or a word that reads as a version.
        """
        record = self.resolve(reference)
        if not alias.isascii() or not alias.replace("-", "").replace("_", "").isalnum() or alias.isdigit() or alias == NEWEST:
            raise LineageError(f"{alias!r} cannot be an alias", f"use letters, digits, - and _; not only digits, and not {NEWEST!r}")
        folder = self.artefacts / record.name / "aliases"
        folder.mkdir(exist_ok=True)
        write_file(folder / alias, f"{record.version}\n")
        return record

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away; LineageError where there is none."""
        if alias not in (known := self.aliases(name)):
            raise LineageError(f"{name} has no alias {alias!r}", f"there are {', '.join(known)}" if known else "it has none")
        (self.artefacts / name / "aliases" / alias).unlink()

    def stands_on(self, record: Record, records: list[Record]) -> list[str]:
        """Who would be left without ground if it went: its children among `records` (all of the project), unfinished runs, aliases."""
        made = [child.reference for child in children(record.reference, records)]
        running = [f"the unfinished run {run.folder.name}" for run in self.runs.all()[0] if run.parent == record.reference]
        named = [f"the alias {record.name}@{alias}" for alias, version in self.aliases(record.name).items() if version == record.version]
        return made + running + named

    def remove(self, reference: str) -> int:
        """Remove an artefact; its record is kept under `removed/`, its version is never given again.

        Returns:
            Bytes set free.

        Raises:
            LineageError: something stands on it; the message says what.
        """
        with locked(self.root / "changes.lock", "the project", wait=60):
            record = self.resolve(reference)
            if above := self.stands_on(record, self.records()):
                raise LineageError(f"{record.reference} cannot be removed; on it stand {', '.join(above)}", "remove or move these first")
            graves = self.artefacts / record.name / "removed"
            graves.mkdir(exist_ok=True)
            write_file(graves / f"{record.version}.json", record.to_json())
            freed = folder_size(self.folder(record))
            remove_tree(self.folder(record))
            return freed

    def base(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder `bases/NAME`; where it is missing, `write` fills it first (a conversion, say), and it appears whole."""
        target = self.bases / name
        if target.is_dir():
            return target
        aside = new_aside(self.bases)
        try:
            write(aside)
            settle(aside, target)
        except FileExistsError:  # another process was faster; what it made is the same
            pass
        except (OSError, SafetensorError) as error:
            raise LineageError(f"{target}: could not be written: {error}", _ROOM) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return target


def open_store(start: Path | None = None) -> Store:
    """The store of the nearest project at or above `start` (by default the current directory); made there where none is."""
    return Store(make_project(start))


def now() -> datetime:
    """This moment, with its zone: what `started` and `finished` want."""
    return datetime.now(UTC)
