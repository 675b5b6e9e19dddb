"""Which format are these rows in? Decided by their columns, said out loud, and never guessed between two."""

from dataclasses import dataclass
from typing import Any

from etude import catalog
from etude.data.formats.contract import Format
from etude.errors import DataError

FIRST = 20
"""Rows that are looked at."""


@dataclass(frozen=True, slots=True)
class Detected:
    """A format and why it was chosen."""

    format: Format
    reason: str


def detect(rows: list[dict[str, Any]], file: str) -> Detected:
    """By the columns that more than half of the first rows have. DataError where none or several formats fit."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row:
            counts[str(name)] = counts.get(str(name), 0) + 1
    columns = frozenset(name for name, count in counts.items() if count * 2 > len(rows))
    shown = ", ".join(name for name in counts if name in columns) or "none that most rows have"
    formats = {name: catalog.find("format", name) for name in catalog.FORMATS}
    fits = {name: used for name, one in formats.items() if (used := one.fits(columns, rows))}
    # A format that needs more of the columns has read the row better: kto over prompt-completion, preference over sharegpt.
    best = {name: used for name, used in fits.items() if not any(used < other for other in fits.values())}
    if len(best) == 1:
        name, used = next(iter(best.items()))
        rest = [column for column in counts if column in columns and column not in used | _also_read(name)]
        unread = f"; not read: {', '.join(rest)}" if rest else ""
        return Detected(formats[name](), f"{file}: format {name}, by its columns {', '.join(sorted(used))}{unread}")
    if best:
        raise DataError(
            f"{file}: its columns ({shown}) fit several formats: {', '.join(best)}",
            f"say which with `format:`, for example `format: {next(iter(best))}`",
        )
    raise DataError(
        f"{file}: its columns ({shown}) fit no format; known: {', '.join(catalog.FORMATS)}",
        "rename columns with `columns: {theirs: prompt, …}`, or write the turns yourself with `render: {prompt: …, completion: …}`",
    )


def _also_read(name: str) -> set[str]:
    """Optional columns of a format, which need no mention."""
    beside = {"system", "tools"}
    return {
        "messages": {"tools"}, "sharegpt": beside, "preference": {*beside, "prompt"}, "kto": beside,
        "alpaca": {"input", "system", "history"}, "prompt-completion": beside,
    }.get(name, set())  # fmt: skip
