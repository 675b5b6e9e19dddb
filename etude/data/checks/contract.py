"""What does a check of the data say? Findings: which rows, how bad, and what to do about them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
"""error: stops a run, makes its numbers untrue or must not be learnt; warning: most likely not meant; note: good to know."""

INSTALL = "install it with `uv sync --extra check`, or `pip install 'etude[check]'`"
EXAMPLES = 3
EXCERPT = 100
"""Characters of a text that an example shows."""


class Place(NamedTuple):
    """Where a row stands."""

    source: str
    """The file, as the user called it."""
    row: int
    """Its number there, from 1."""

    def __str__(self) -> str:
        return f"{self.source}:{self.row}"


@dataclass(frozen=True, slots=True)
class Repair:
    """A text of a row that can be mended without losing anything."""

    place: Place
    old: str
    """The whole text as it stands in the row, in whatever field."""
    new: str
    """What it should be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, over all rows that have it."""

    kind: str
    """A few words that name it."""
    severity: Severity
    """error, warning or note."""
    what: str
    """A sentence with the figures."""
    remedy: str
    """What to do about it."""
    rows: tuple[Place, ...] = ()
    """Every row that has it; empty where it is about the data as a whole."""
    examples: tuple[str, ...] = ()
    """What it looks like in the first of them."""
    drop: tuple[Place, ...] = ()
    """The rows that a cleaned copy leaves out because of it."""
    repairs: tuple[Repair, ...] = ()
    """What a cleaned copy mends because of it."""


class Skipped(Exception):
    """A check that could not be made. `why` names what it lacks, `remedy` what brings it."""

    def __init__(self, why: str, remedy: str):
        super().__init__(why)
        self.why = why
        self.remedy = remedy


def excerpt(text: str, at: int = 0) -> str:
    """One line of a text around a place in it."""
    start = max(0, at - EXCERPT // 3)
    shown = " ".join(text[start : start + EXCERPT].split())
    return f"{'…' if start else ''}{shown}{'…' if start + EXCERPT < len(text) else ''}"


def first(texts: Iterable[str]) -> tuple[str, ...]:
    """The first few, shortened."""
    return tuple(excerpt(text) for text, _ in zip(texts, range(EXAMPLES)))


def rows(count: int, said: str = "") -> str:
    """`1 row`, `2 rows`; with what they do, its verb first: `1 row holds tags`, `2 rows hold tags`."""
    verb, _, rest = said.partition(" ")
    if count == 1 and verb:
        verb = {"have": "has", "are": "is"}.get(verb, f"{verb}s")
    return " ".join(part for part in (f"{count:,} row{'' if count == 1 else 's'}", verb, rest) if part)


def beside(one: Place, sign: str, other: Place) -> str:
    """Two rows, as `row 3 = row 1`; by their files too where these differ."""
    return f"row {one.row} {sign} row {other.row}" if one.source == other.source else f"{one} {sign} {other}"
