"""What would preparation refuse, leave out, cut or do otherwise? Its own guards, over all rows instead of up to the first."""

from collections.abc import Iterator

from etude.data.checks.contract import Finding, Severity, first, rows
from etude.data.checks.material import Entry, Material
from etude.data.samples import TooLongError

TELLS: dict[str, tuple[Severity, str, str, str]] = {
    "truncated": (
        "warning",
        "rows cut at the front",
        "do not fit into the context and lose their earliest turns",
        "raise `context`, or shorten them",
    ),
    "prefilled": (
        "warning",
        "template drift: the generation prompt begins the answer",
        "are asked with a generation prompt that begins the answer itself, as `<think>` does; their own rendering has it not",
        "write the thought into the answers, or take the template that will be used when it answers",
    ),
    "unrolled": (
        "note",
        "rewritten history",
        "have a template that rewrites earlier turns: each answer becomes a sample of its own",
        "nothing; it costs more tokens",
    ),
    "opening": (
        "note",
        "conversations that begin with the assistant",
        "begin with the assistant; that turn answers nothing and is not learnt",
        "put what it says into a system turn, if it matters",
    ),
    "touching": (
        "warning",
        "prompt and completion touch",
        "join prompt and completion without any space",
        "end the prompt as it will end when it is asked",
    ),
    "marked": (
        "note",
        "end-of-text token in the text",
        "end in the end-of-text token already; it is not added twice",
        "leave it out of the rows",
    ),
    "split": (
        "note",
        "texts longer than the context",
        "are longer than the context and are split",
        "raise `context`, if they belong together",
    ),
}
"""By a lesson's flag: severity, kind, what these rows do, what to do about it."""


def refused(material: Material) -> Iterator[Finding]:
    """Rows that cannot be used, by the guard that refuses them: unreadable, unlike their format, empty, without a stop token, too long …

    The guards are those of etude/data/supervise.py, template.py and values.py, which stand before every training.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in material.entries:
        if entry.trouble is not None:
            groups.setdefault(entry.trouble.kind, []).append(entry)
    for kind, entries in groups.items():
        troubles = [entry.trouble for entry in entries if entry.trouble is not None]
        long = isinstance(troubles[0], TooLongError)
        stops = material.data.too_long == "error" if long else material.data.bad_rows == "error"
        places = tuple(entry.place for entry in entries)
        yield Finding(
            kind=kind,
            severity="error" if stops else "warning",
            what=f"{rows(len(entries))} {'would stop the run' if stops else 'will be left out'}: {troubles[0].message}",
            remedy=troubles[0].remedy or "mend the rows, or set `bad_rows: drop`",
            rows=places,
            examples=first(dict.fromkeys(trouble.message for trouble in troubles)),
            drop=places,
        )


def stopped(material: Material) -> Iterator[Finding]:
    """What would stop a stage whatever rows are left out: rows of another kind than the objective's, nothing left to train on."""
    if material.stop is not None:
        yield Finding("the stage would stop", "error", material.stop.message, material.stop.remedy or "see the message")


def handled(material: Material) -> Iterator[Finding]:
    """Rows that preparation cuts, splits or learns otherwise than they are written."""
    for flag, (severity, kind, what, remedy) in TELLS.items():
        found = [entry for entry in material.usable if flag in entry.flags]
        if found:
            yield Finding(kind, severity, rows(len(found), what), remedy, tuple(entry.place for entry in found))
