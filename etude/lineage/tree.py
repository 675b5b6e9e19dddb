"""Who came from whom? The line above an artefact and the tree below it, from the records alone."""

from collections.abc import Iterable
from dataclasses import dataclass

from etude.lineage.record import Record


@dataclass(frozen=True)
class Branch:
    """An artefact and what was made from it."""

    record: Record
    """The artefact."""
    children: tuple["Branch", ...]
    """What names it as its parent, oldest first."""


def parent_of(record: Record, records: Iterable[Record]) -> Record | None:
    """The artefact that `record` was made from; None where that is a base from outside, or was removed by hand."""
    if record.parent is None or record.parent.kind != "artefact":
        return None
    return next((r for r in records if r.reference == record.parent.reference), None)


def ancestors(record: Record, records: list[Record]) -> list[Record]:
    """Parent, grandparent … up to the first one made from a base."""
    line: list[Record] = []
    while (parent := parent_of(line[-1] if line else record, records)) is not None:
        line.append(parent)
    return line


def children(reference: str, records: Iterable[Record]) -> list[Record]:
    """What was made from the artefact `reference` (`name@version`), oldest first."""
    made = [r for r in records if r.parent and r.parent.kind == "artefact" and r.parent.reference == reference]
    return sorted(made, key=lambda r: (r.finished, r.reference))


def branch(record: Record, records: list[Record]) -> Branch:
    """`record` with all that stands on it, to the last descendant."""
    return Branch(record, tuple(branch(child, records) for child in children(record.reference, records)))
