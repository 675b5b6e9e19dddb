"""How does a judgement look in a terminal, or in Markdown? The same figures and words as in the report."""

import re
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from etude.evaluation import figures
from etude.evaluation.judgement import Axis, Judgement

STYLES = {"better": "green", "worse": "red", "unchanged": "dim", "cannot tell": "yellow"}


@dataclass(frozen=True, slots=True)
class _Line:
    """An axis in words; each second part may stand below the first."""

    name: tuple[str, str]
    parent: str
    tuned: str
    difference: tuple[str, str]
    verdict: str


def terminal_table(judgement: Judgement) -> Table:
    """One line for each axis: parent, tuned, difference with its interval, verdict. 80 columns are enough."""
    about, share = judgement.about, figures.confidence(judgement.confidence)
    table = Table(title=Text(judgement.headline, style="bold"), box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    names = f"parent: {about.parent}, tuned: {about.tuned}."  # below the table, because file names are long and columns are not
    table.caption = Text(f"{names} {_divergence(judgement)}" if judgement.divergence else names)
    table.add_column("")
    for head in ("parent", "tuned"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column(f"difference\n{share} interval", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for axis in judgement.axes:
        line = _line(axis)
        name, difference = (Text("\n").join([Text(first), Text(second, style="dim")]) for first, second in (line.name, line.difference))
        style = STYLES[axis.verdict]
        table.add_row(name, Text(line.parent), Text(line.tuned), difference, Text(line.verdict, style=style))
    return table


def as_markdown(judgement: Judgement) -> str:
    """The headline, the sentences behind it, the table and the warnings, as GitHub-flavoured Markdown."""
    about, share = judgement.about, figures.confidence(judgement.confidence)
    rows = [["", about.parent, about.tuned, f"difference ({share} interval)", "verdict"]]
    for line in map(_line, judgement.axes):
        (name, of), (difference, span) = line.name, line.difference
        rows.append([f"{name} ({of})", line.parent, line.tuned, f"{difference} ({span})", line.verdict])
    head, *body = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    blocks = [
        f"**{_escaped(judgement.headline)}**",
        *map(_escaped, judgement.explanation),
        "\n".join([head, "|---|--:|--:|--:|---|", *body]),
        *([_escaped(_divergence(judgement))] if judgement.divergence else []),
        "\n".join(f"- {_escaped(warning)}" for warning in judgement.warnings),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _line(axis: Axis) -> _Line:
    of = "nats a token, lower is better" if axis.unit == "nats/token" else f"{figures.count(axis.n)} rows"
    if axis.group == "task":  # what is learnt of text is read in bits per byte, beside gzip's
        of = "\n".join([of, *(figures.restated(other) for other in axis.restated if other.unit == "bits/byte")])
    parent, tuned = (figures.value(axis.unit, interval.value) for interval in (axis.parent, axis.tuned))
    difference = figures.difference(axis.unit, axis.difference.value), figures.difference_span(axis.unit, axis.difference)
    return _Line((axis.name, of), parent, tuned, difference, f"{figures.MARKS[axis.verdict]} {axis.verdict}")


def _divergence(judgement: Judgement) -> str:
    assert judgement.divergence is not None
    nats, unit = judgement.divergence.nats, "nats/token"
    span = figures.span(unit, nats)
    return f"On general text it moved from its parent by KL(parent ‖ tuned) = {figures.value(unit, nats.value)} nats a token ({span})."


def _escaped(text: str) -> str:
    """Nothing in a name or a row may end a cell or begin markup."""
    plain = text.replace("\\", "\\\\").replace("\n", " ")
    plain = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", plain)
    return re.sub(r"([|*_`\[])", r"\\\1", plain)
