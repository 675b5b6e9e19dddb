"""What does a person see of checked data? A table on a terminal, and one page with plots that needs nothing else."""

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etude.data.checks.contract import Finding
from etude.data.checks.every import SEVERITIES
from etude.data.checks.portrait import Side

if TYPE_CHECKING:
    from etude.compose.checking import Checked

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
ROWS_SHOWN, ROWS_ON_PAGE = 6, 200
BAR = 24
WIDTH, HEIGHT, FOOT = 420.0, 150.0, 22.0


def as_table(checked: "Checked") -> RenderableType:
    """For a rich console: findings, the worst first, then the shape of the data, then what was not checked."""
    shown: list[RenderableType] = [Text(note, style="dim") for note in checked.notes]
    if checked.found:
        table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for one in checked.found:
            table.add_row(Text(one.severity, style=STYLES[one.severity]), _told(one))
        shown.append(table)
    shown += [_shape(side) for side in checked.sides]
    shown.append(Text())
    for one in checked.unmade:
        shown.append(Text(f"not checked: {one.check}: {one.why}\n  → {one.remedy}", style="dim"))
    shown.append(Text(summary(checked), style="bold"))
    if checked.mended is not None:
        shown += [Text(line) for line in _mended(checked)]
    return Group(*shown)


def summary(checked: "Checked") -> str:
    """One line."""
    counts = {name: sum(one.severity == name for one in checked.found) for name in SEVERITIES}
    told = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n) or "nothing found"
    base = f", as {checked.base} reads them" if checked.base else ""
    return f"{checked.path}: {checked.rows:,} row{'' if checked.rows == 1 else 's'} checked{base}: {told}"


def _told(one: Finding) -> Text:
    text = Text.assemble((f"{one.kind}\n", "bold"), one.what)
    if one.rows:
        text.append(f"\nrows {numbers(one, ROWS_SHOWN)}", style="dim")
    for example in one.examples:
        text.append(f"\n  {example}", style="italic dim")
    text.append(f"\n→ {one.remedy}")
    return text


def numbers(one: Finding, most: int) -> str:
    """Row numbers, by their file where there are several."""
    several = len({place.source for place in one.rows}) > 1
    told = ", ".join(str(place) if several else str(place.row) for place in one.rows[:most])
    return told + (f" … {len(one.rows) - most:,} more" if len(one.rows) > most else "")


def _shape(side: Side) -> RenderableType:
    most = max(bar.rows for bar in side.bars)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for bar in side.bars:
        table.add_row(f"  {bar.low:,}–{bar.high:,}", f"{bar.rows:,}", "█" * max(bool(bar.rows), round(BAR * bar.rows / most)))
    return Group(Text(described(side), style="italic"), table)


def described(side: Side) -> str:
    """Lengths and diversity in a sentence."""
    said = f"{side.name}: half have up to {side.median:,.0f} {side.unit}, 95 % up to {side.high:,.0f}, the longest {side.longest:,}"
    if side.unit == "words":
        said += f"; {side.different:.0%} different, {side.distinct[1]:.0%} of word pairs distinct"
    return said


def _mended(checked: "Checked") -> list[str]:
    done = checked.mended
    assert done is not None
    lines = [f"{done.file} written: {done.kept:,} rows kept, {done.removed:,} left out, {done.repaired:,} mended; why: {done.listed}"]
    if done.unrepaired:
        lines.append(f"{done.unrepaired:,} rows were not mended: their text stands in no column as it is rendered")
    return lines


def as_page(checked: "Checked") -> str:
    """HTML. Everything from rows is escaped; no script, no network."""
    packages = Environment(loader=PackageLoader("etude", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return packages.get_template("compose/check.html.jinja").render(
        checked=checked,
        summary=summary(checked),
        numbers=lambda one: numbers(one, ROWS_ON_PAGE),
        described=described,
        bars=_bars,
        width=WIDTH,
        height=HEIGHT,
        foot=FOOT,
    )


def _bars(side: Side) -> list[dict[str, float | str]]:
    """Geometry of a histogram in SVG user units."""
    most, step = max(bar.rows for bar in side.bars), WIDTH / len(side.bars)
    tall = lambda count: round((HEIGHT - FOOT - 16) * count / most, 1)
    return [
        {
            "x": round(i * step + 2, 1),
            "y": round(HEIGHT - FOOT - tall(bar.rows), 1),
            "width": round(step - 4, 1),
            "height": tall(bar.rows),
            "label": f"≤ {bar.high:,}",
            "rows": f"{bar.rows:,}",
        }
        for i, bar in enumerate(side.bars)
    ]
