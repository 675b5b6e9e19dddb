"""What could be thrown away without loss of anything that is named, newest or stood upon? First said, then done."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from etude.errors import LineageError
from etude.lineage.durable import folder_size, remove_tree
from etude.lineage.lock import locked
from etude.lineage.record import Record
from etude.lineage.store import Store

_ARTEFACT = re.compile(r"[a-z0-9][a-z0-9._-]*@\d+")


@dataclass(frozen=True)
class Freeable:
    """One thing that may go."""

    path: Path
    """Its folder."""
    reference: str | None
    """`name@version` of an artefact; null for anything else."""
    reason: str
    """What it is, and why nothing would miss it."""
    bytes: int
    """What it would set free."""


def freeable(store: Store, *, runs: bool = False) -> list[Freeable]:
    """The dry run, in the order in which things can go.

    What runs left over, older versions without alias, descendants or run on them, converted bases on which nothing stands, and pages
    that can be made again.

    Args:
        runs: unfinished runs in which no process works too, although the same command would go on with them.
    """
    records = store.records()
    done = {r.identity: r.reference for r in records}
    reasons = {run.folder: f"left over; {done[run.identity]} is finished" for run in store.runs.all()[0] if run.identity in done}
    found = [Freeable(f, None, reason, folder_size(f)) for f, reason in reasons.items() if not store.runs.active(f)]
    found += unfinished(store) if runs else []
    newest = {name: max(r.version for r in records if r.name == name) for name in {r.name for r in records}}
    going: set[str] = set()
    while True:  # a parent can go after its children
        old = [r for r in records if r.version < newest[r.name] and r.reference not in going]
        ready = [r for r in old if going.issuperset(store.stands_on(r, records))]
        if not ready:
            break
        for record in ready:
            going.add(record.reference)
            reason = f"{record.name}@{newest[record.name]} is newer; nothing stands on it and no alias names it"
            found.append(Freeable(store.folder(record), record.reference, reason, folder_size(store.folder(record))))
    left = [record for record in records if record.reference not in going]
    return found + _bases(store) + _pages(store, left)


def unfinished(store: Store) -> list[Freeable]:
    """Runs that the same command would go on with, and folders in which nothing readable says which run they are; none at work now."""
    done = {record.identity for record in store.records()}
    runs, strays = store.runs.all()
    what = {run.folder: "an unfinished run" for run in runs if run.identity not in done}
    what |= dict.fromkeys(strays, "a run that nothing readable describes")
    idle = [(folder, kind) for folder, kind in what.items() if not store.runs.active(folder)]
    return [Freeable(folder, None, f"{kind}, {progress(store, folder)}", folder_size(folder)) for folder, kind in idle]


def progress(store: Store, folder: Path) -> str:
    """How far a run came, and how long ago."""
    step, hours = store.runs.step(folder), (datetime.now(UTC) - store.runs.touched(folder)).total_seconds() / 3600
    age = f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} hours ago" if hours >= 2 else f"{hours * 60:.0f} minutes ago"
    return f"{f'saved at step {step}' if step else 'with nothing saved'}, last worked on {age}"


def _bases(store: Store) -> list[Freeable]:
    """Converted GGUF files, newborn models and streamed weights from which nothing here was made: they are made again when needed."""
    reason = "a model's weights, converted or newborn; no artefact or unfinished run comes from them, and they are made again when needed"
    folders = sorted(folder for folder in store.bases.glob("[!.]*") if folder.is_dir())
    return [Freeable(folder, None, reason, folder_size(folder)) for folder in folders if not _stood_upon(store, folder)]


def _stood_upon(store: Store, base: Path) -> bool:
    """Whether an artefact or a run was made from the file that a folder in `bases/` is called after, or from the newborn in it."""
    parents = [record.parent.reference for record in store.records() if record.parent is not None]
    parents += [run.parent for run in store.runs.all()[0]]
    return any(base.name.startswith(f"{Path(parent).stem}-") or parent == f"newborn:{base.name}" for parent in parents)


def _pages(store: Store, left: list[Record]) -> list[Freeable]:
    """Comparisons whose both sides will still be there, and frontiers, whose arms are artefacts."""
    there, found = {record.reference for record in left}, []
    for folder in sorted((store.root / "comparisons").glob("*")):
        sides = _sides(folder)
        if sides and all(side in there or not _ARTEFACT.fullmatch(side) for side in sides):
            found.append(Freeable(folder, None, f"the comparison of {' and '.join(sides)}; it can be made again", folder_size(folder)))
    for folder in sorted((store.root / "frontiers").glob("*")):
        reason = "a frontier's page; `etude frontier` makes it again from its arms"
        found.append(Freeable(folder, None, reason, folder_size(folder)))
    return found


def _sides(folder: Path) -> list[str]:
    """Who was compared; empty where that cannot be read."""
    try:
        about = json.loads((folder / "judgement.json").read_text(encoding="utf-8"))["about"]
        return [str(about["parent"]), str(about["tuned"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def free(store: Store, items: list[Freeable]) -> int:
    """Remove them, in their order; each is looked at again before.

    Returns:
        Bytes set free.

    Raises:
        LineageError: something came to stand on one of them, or began to work in it, since the dry run.
    """
    freed = 0
    for item in items:
        again = LineageError(f"{item.path} is in use again; {freed} bytes were freed before it", "run `etude clean` again")
        if item.reference is not None:
            freed += store.remove(item.reference)
        elif item.path.parent == store.runs.folder:
            if store.runs.active(item.path):
                raise again
            freed += store.runs.remove(item.path)
        else:
            with locked(store.root / "changes.lock", "the project", wait=60):
                if item.path.parent == store.bases and _stood_upon(store, item.path):
                    raise again
                remove_tree(item.path)
            freed += item.bytes
    return freed
