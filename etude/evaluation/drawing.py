"""Where do the marks of the report's drawings lie? Geometry in SVG user units; the template draws it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etude.evaluation import figures
from etude.evaluation.judgement import Axis, Curve, Point

WHISKER_WIDTH, WHISKER_EDGE = 180.0, 6.0
CHART_WIDTH, CHART_HEIGHT = 720.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 12.0, 36.0
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Whisker:
    """One difference with its interval on a line, zero in the middle."""

    low: float
    """x of the interval's lower end."""
    value: float
    """x of the difference."""
    high: float
    """x of the upper end."""
    zero: float
    """x of no difference."""
    margin: float | None
    """Half the width of the band that counts as unchanged."""


def whiskers(axes: Sequence[Axis]) -> list[Whisker]:
    """One for each axis. Rates share one scale, so that their lengths can be compared; each loss has its own."""
    reach = [max(abs(axis.difference.low), abs(axis.difference.high), axis.margin or 0, 1e-9) for axis in axes]
    of_rates = max((far for axis, far in zip(axes, reach, strict=True) if axis.unit != "nats/token"), default=0.0)
    drawn = []
    for axis, far in zip(axes, reach, strict=True):
        unit = (WHISKER_WIDTH / 2 - WHISKER_EDGE) / (far if axis.unit == "nats/token" else of_rates)
        x = lambda number, unit=unit: round(WHISKER_WIDTH / 2 + number * unit, 1)
        margin = None if axis.margin is None else round(axis.margin * unit, 1)
        drawn.append(Whisker(x(axis.difference.low), x(axis.difference.value), x(axis.difference.high), WHISKER_WIDTH / 2, margin))
    return drawn


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    """x or y."""
    label: str
    """What stands beside it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One loss over the steps."""

    name: str
    """`train` or `held out`."""
    path: str
    """The `d` of an SVG path."""
    points: list[tuple[float, float, int, str]]
    """x, y, step and the loss as text, for the hover."""


@dataclass(frozen=True, slots=True)
class Chart:
    """The loss curve."""

    lines: list[Line]
    """Train first, then held out; those that have points."""
    x_ticks: list[Tick]
    """Steps."""
    y_ticks: list[Tick]
    """In the unit of the curve."""
    thinned: int
    """Steps that one point of the training line is the mean of."""


def chart(curve: Curve) -> Chart | None:
    """The loss curve's geometry; None where there is nothing to draw."""
    every = max(1, math.ceil(len(curve.train) / MOST_POINTS))
    series = {"train": _thinned(curve.train, every), "held out": list(curve.held_out)}
    points = [point for line in series.values() for point in line]
    if not points:
        return None
    steps, losses = [point.step for point in points], [point.loss for point in points]
    x_ticks = nice(min(steps), max(steps), 8, whole=True)
    from_zero = min(losses) < 0.4 * max(losses)  # a curve that falls far is drawn from zero: no dramatising
    y_ticks = nice(0.0 if from_zero else min(losses), max(losses), 5)
    x_low, x_high, y_low, y_high = min(steps), max(max(steps), min(steps) + 1), y_ticks[0], y_ticks[-1]
    x = lambda step: round(LEFT + (step - x_low) / (x_high - x_low) * (CHART_WIDTH - LEFT - RIGHT), 1)
    y = lambda loss: round(CHART_HEIGHT - BOTTOM - (loss - y_low) / (y_high - y_low) * (CHART_HEIGHT - TOP - BOTTOM), 1)
    lines = []
    for name, line in series.items():
        placed = [(x(point.step), y(point.loss), point.step, figures.value("nats/token", point.loss)) for point in line]
        if placed:
            lines.append(Line(name, "M" + " L".join(f"{left} {top}" for left, top, _, _ in placed), placed))
    inside = [Tick(x(step), f"{step:,.0f}") for step in x_ticks if x_low <= step <= x_high]
    return Chart(lines, inside, [Tick(y(loss), f"{loss:.4g}") for loss in y_ticks], every)


def _thinned(points: Sequence[Point], every: int) -> list[Point]:
    """Means of `every` neighbouring points."""
    groups: Iterable[Sequence[Point]] = (points[start : start + every] for start in range(0, len(points), every))
    return [Point(step=group[len(group) // 2].step, loss=sum(point.loss for point in group) / len(group)) for group in groups]


def nice(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, 1, 2 or 5 times a power of ten apart."""
    rough = max(high - low, 1.0 if whole else 1e-3) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
