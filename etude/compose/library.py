"""What there is in a project, and what may go: the functions behind `etude list`, `show` and `clean`."""

from dataclasses import dataclass
from pathlib import Path

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
    """Old versions and unfinished runs that nothing stands on, in the order in which they can go."""
    freed: int
    """Bytes set free; 0 where it was only asked."""


def list_(*, project: Path | None = None) -> list[Entry]:
    """Every artefact of the project, the latest finished first; none where there is no project.

    Args:
        project: where `.etude` is looked for, upwards; by default the current directory.
    """
    found = find_project(project)
    if found is None:
        return []
    store = Store(found)
    named = {record.name: store.aliases(record.name) for record in store.records()}
    return [
        Entry(record, store.folder(record), [alias for alias, version in named[record.name].items() if version == record.version])
        for record in store.records()
    ]


def show(name: str, *, project: Path | None = None) -> Shown:
    """An artefact with its folder, aliases, ancestors and descendants.

    Args:
        name: `name`, `name@version` or `name@alias`.

    Raises:
        LineageError: no such artefact; the nearest names are suggested.
    """
    found = find_project(project)
    if found is None:
        raise LineageError(f"no artefact {name!r}: there is no project in {project or Path.cwd()} or above it", "`etude run` makes one")
    return Store(found).show(name)


def clean(*, yes: bool = False, project: Path | None = None) -> Cleaned:
    """Say what could be thrown away without loss of anything that is named, newest or stood upon.

    Args:
        yes: throw it away.

    Raises:
        LineageError: something came into use meanwhile.
    """
    found = find_project(project)
    if found is None:
        return Cleaned([], 0)
    store = Store(found)
    items = cleaning.freeable(store)
    return Cleaned(items, cleaning.free(store, items) if yes else 0)
