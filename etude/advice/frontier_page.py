"""The learn/forget frontier as a page: where each arm lies, with its intervals, and a table of what it took."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from etude.advice.arm import Arm, Frontier
from etude.evaluation import figures
from etude.evaluation.drawing import Tick, nice
from etude.evaluation.judgement import Axis

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 110.0, 18.0, 52.0


@dataclass(frozen=True, slots=True)
class Spot:
    """An arm's place, in SVG user units: further right is more forgotten, further up is more learnt."""

    name: str
    x: float
    y: float
    left: float
    right: float
    """Ends of the interval of what was forgotten."""
    top: float
    bottom: float
    """Ends of the interval of the task's figure."""
    best: bool


def render(found: Frontier) -> str:
    """The page as HTML; it needs no network and runs no script."""
    packages = Environment(loader=PackageLoader("etude", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    arms = [arm for arm in found.arms if arm.general is not None]
    spots, x_ticks, y_ticks, zero = _places(arms) if arms else ([], [], [], 0.0)
    return packages.get_template("advice/frontier.html.jinja").render(
        found=found,
        figures=figures,
        spots=spots,
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        zero=zero,
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM},
    )


def _places(arms: list[Arm]) -> tuple[list[Spot], list[Tick], list[Tick], float]:
    lost: list[Axis] = [arm.general for arm in arms if arm.general is not None]
    unit, task = arms[0].task.unit, [arm.task.tuned for arm in arms]
    x_marks = nice(min(0.0, *(a.difference.low for a in lost)), max(0.01, *(a.difference.high for a in lost)), 7)
    y_marks = nice(min(a.low for a in task), max(a.high for a in task), 6)
    x = lambda n: round(LEFT + (n - x_marks[0]) / (x_marks[-1] - x_marks[0]) * (WIDTH - LEFT - RIGHT), 1)
    up = lambda n: (n - y_marks[0]) / (y_marks[-1] - y_marks[0])
    higher = arms[0].task.higher_is_better
    y = lambda n: round(HEIGHT - BOTTOM - (up(n) if higher else 1 - up(n)) * (HEIGHT - TOP - BOTTOM), 1)
    spots = [
        Spot(
            arm.kind,
            x(a.difference.value),
            y(t.value),
            x(a.difference.low),
            x(a.difference.high),
            y(t.high),
            y(t.low),
            arm.best,
        )
        for arm, a, t in zip(arms, lost, task, strict=True)
    ]
    x_ticks = [Tick(x(n), figures.difference("nats/token", n, with_unit=False)) for n in x_marks]
    return spots, x_ticks, [Tick(y(n), figures.value(unit, n)) for n in y_marks], x(0.0)
