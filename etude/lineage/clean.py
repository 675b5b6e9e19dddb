"""What could be thrown away without loss of anything that is named, newest or stood upon? First said, then done."""

from dataclasses import dataclass
from pathlib import Path

from etude.errors import LineageError
from etude.lineage.durable import folder_size
from etude.lineage.store import Store


@dataclass(frozen=True)
class Freeable:
    """One thing that may go."""

    path: Path
    """The folder of an old version or of an unfinished run."""
    reference: str | None
    """`name@version` of an artefact; null for a run."""
    reason: str
    """Why nothing would miss it."""
    bytes: int
    """What it would set free."""


def freeable(store: Store) -> list[Freeable]:
    """The dry run, in the order in which things can go.

    Unfinished runs in which no process works, and older versions without alias, descendants or run on them.
    """
    records = store.records()
    done = {r.identity: r.reference for r in records}
    runs, strays = store.runs.all()
    reasons = {run.folder: f"left over; {done[run.identity]} is finished" if run.identity in done else "an unfinished run" for run in runs}
    reasons |= {folder: "a run that nothing readable describes" for folder in strays}
    found = [Freeable(f, None, reason, folder_size(f)) for f, reason in reasons.items() if not store.runs.active(f)]
    newest = {name: max(r.version for r in records if r.name == name) for name in {r.name for r in records}}
    going: set[str] = set()
    while True:  # a parent can go after its children
        old = [r for r in records if r.version < newest[r.name] and r.reference not in going]
        ready = [r for r in old if going.issuperset(store.stands_on(r, records))]
        if not ready:
            return found
        for record in ready:
            going.add(record.reference)
            reason = f"{record.name}@{newest[record.name]} is newer; nothing stands on it and no alias names it"
            found.append(Freeable(store.folder(record), record.reference, reason, folder_size(store.folder(record))))


def free(store: Store, items: list[Freeable]) -> int:
    """Remove them, in their order; each is looked at again before.

    Returns:
        Bytes set free.

    Raises:
        LineageError: something came to stand on one of them, or began to work in it, since the dry run.
    """
    freed = 0
    for item in items:
        if item.reference is not None:
            freed += store.remove(item.reference)
        elif store.runs.active(item.path):
            raise LineageError(f"{item.path} is in use again; {freed} bytes were freed before it", "run `etude clean` again")
        else:
            freed += store.runs.remove(item.path)
    return freed
