"""What there is in a project, what it is called and what may go: the functions behind `etude list`, `show`, `name` and `clean`."""

from dataclasses import dataclass
from pathlib import Path

from etude.compose.voice import Voice
from etude.errors import LineageError
from etude.lineage import clean as cleaning
from etude.lineage.clean import Freeable
from etude.lineage.project import find_project
from etude.lineage.record import Record
from etude.lineage.store import Shown, Store


@dataclass(frozen=True, slots=True)
class Entry:
    """An artefact in the list."""

    record: Record
    """What is known about it."""
    folder: Path
    """Where it lies."""
    aliases: list[str]
    """Names that point at this version."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What could be thrown away without loss, or was."""

    items: list[Freeable]
    """In the order in which they can go."""
    freed: int
    """Bytes set free; 0 where it was only asked."""
    unfinished: list[Freeable]
    """Runs that were left alone, because the same command would go on with them."""


def list_(*, voice: Voice | None = None, project: Path | None = None) -> list[Entry]:
    """Every artefact of the project, the latest finished first; none where there is no project.

    Args:
        voice: told what was mended or had to be left out.
        project: where `.etude` is looked for, upwards; by default the current directory.
    """
    found = find_project(project)
    if found is None:
        return []
    store = Store(found)
    records = store.records()
    named = {record.name: store.aliases(record.name) for record in records}
    _tell(store, voice)
    return [
        Entry(record, store.folder(record), [alias for alias, version in named[record.name].items() if version == record.version])
        for record in records
    ]


def show(name: str, *, voice: Voice | None = None, project: Path | None = None) -> Shown:
    """An artefact with its folder, aliases, ancestors and descendants.

    Args:
        name: `name`, `name@version` or `name@alias`.
        voice: told what was mended or had to be left out.

    Raises:
        LineageError: no such artefact; the nearest names are suggested.
    """
    store = _store(name, project)
    shown = store.show(name)
    _tell(store, voice)
    return shown


def verify(name: str, *, project: Path | None = None) -> list[str]:
    """What is wrong with an artefact's files, every byte of them read: missing, changed, added; empty where all is well.

    Raises:
        LineageError: no such artefact.
    """
    return _store(name, project).verify(name)


def name(reference: str, alias: str, *, remove: bool = False, project: Path | None = None) -> Record:
    """Let an alias stand for an artefact, so that `name@alias` finds it and nothing throws it away; it moves if it stood for another.

    Args:
        reference: `name`, `name@version` or `name@alias`.
        alias: such as `production`.
        remove: take it away instead; the artefact, which is returned either way, stays.

    Raises:
        LineageError: no such artefact or alias, or a word that cannot be one.
    """
    store = _store(reference, project)
    if not remove:
        return store.set_alias(reference, alias)
    record = store.resolve(reference)
    if "@" in reference and (version := store.aliases(record.name).get(alias, record.version)) != record.version:
        other = f"{record.name}@{alias} stands for {record.name}@{version}, not for {record.reference}"
        raise LineageError(other, f"`etude name {record.name}@{version} {alias} --remove`")
    store.remove_alias(record.name, alias)
    return record


def clean(*, yes: bool = False, runs: bool = False, voice: Voice | None = None, project: Path | None = None) -> Cleaned:
    """Say what could be thrown away without loss of anything that is named, newest, unfinished or stood upon.

    Args:
        yes: throw it away.
        runs: unfinished runs too, with their checkpoints.
        voice: told what was mended or had to be left out.

    Raises:
        LineageError: something came into use meanwhile.
    """
    found = find_project(project)
    if found is None:
        return Cleaned([], 0, [])
    store = Store(found)
    items = cleaning.freeable(store, runs=runs)
    _tell(store, voice)
    return Cleaned(items, cleaning.free(store, items) if yes else 0, [] if runs else cleaning.unfinished(store))


def _store(reference: str, project: Path | None) -> Store:
    found = find_project(project)
    if found is None:
        raise LineageError(
            f"no artefact {reference!r}: there is no project in {project or Path.cwd()} or above it", "`etude run` makes one"
        )
    return Store(found)


def _tell(store: Store, voice: Voice | None) -> None:
    for note in store.notes:
        (voice or Voice()).say(note)
