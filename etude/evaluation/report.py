"""What does a person look at? The judgement as one HTML file that needs nothing else: no network, no other file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from etude.evaluation import drawing, figures
from etude.evaluation.judgement import Cost, Judgement

SHORTEST_COMMON = 40


def render_report(judgement: Judgement) -> str:
    """The report as HTML. Everything from rows and recipes is escaped, and the page's own policy runs no script but its own."""
    environment = Environment(loader=PackageLoader("etude", "evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    chart = drawing.chart(judgement.about.curve)
    return environment.get_template("report.html.jinja").render(
        judgement=judgement,
        about=judgement.about,
        figures=figures,
        groups=[
            ("The task", list(judgement.of("task"))),
            ("What should be kept", list(judgement.of("keep"))),
        ],
        whiskers=dict(zip((axis.name for axis in judgement.axes), drawing.whiskers(judgement.axes), strict=True)),
        whisker_width=drawing.WHISKER_WIDTH,
        chart=chart,
        chart_lines=[] if chart is None else [{"name": line.name, "points": line.points} for line in chart.lines],
        drawing=drawing,
        cost=_cost(judgement.about.cost),
        common=_common_beginning([example.prompt for example in judgement.examples]),
        # No row can hold the digest of a text that it is part of.
        nonce=hashlib.sha256(judgement.to_json().encode()).hexdigest()[:32],
    )


def write_report(judgement: Judgement, path: Path) -> Path:
    """Writes the report to `path` and gives it back."""
    path.write_text(render_report(judgement), encoding="utf-8")
    return path


def _common_beginning(prompts: list[str]) -> str:
    """What all prompts begin with, up to a space or a line's end; empty where that is too little to be worth saying once."""
    first, last = min(prompts, default=""), max(prompts, default="")  # in order, these two differ the earliest
    length = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), 0)
    length = max(first.rfind(" ", 0, length), first.rfind("\n", 0, length)) + 1
    return first[:length] if length >= SHORTEST_COMMON else ""


def _cost(cost: Cost) -> list[tuple[str, str, str]]:
    """Name, figure and remark of everything that was measured; unmeasured things are named as such."""
    shared, rate, share = "", "", ""
    if cost.logical_tokens and cost.computed_tokens:
        shared = f"{cost.logical_tokens / cost.computed_tokens:.2f} times fewer than the logical ones: shared beginnings were computed once"
    if cost.seconds and cost.logical_tokens and cost.computed_tokens:
        rate = f"{figures.count(round(cost.logical_tokens / cost.seconds))} logical and "
        rate += f"{figures.count(round(cost.computed_tokens / cost.seconds))} computed tokens a second"
    if cost.trainable_parameters is not None and cost.parameters:
        share = f"{100 * cost.trainable_parameters / cost.parameters:.3g}{figures.THIN}% of {figures.large(cost.parameters)}"
    lines: list[tuple[str, float | None, Callable[..., str], str]] = [
        ("Training", cost.seconds, figures.duration, rate),
        ("Judging", cost.judging_seconds, figures.duration, "both models"),
        ("Logical tokens", cost.logical_tokens, figures.count, "as if nothing were shared"),
        ("Computed tokens", cost.computed_tokens, figures.count, shared),
        ("Supervised tokens", cost.supervised_tokens, figures.count, "predictions that were learnt from"),
        ("Peak memory", cost.peak_memory_bytes, figures.memory, ""),
        ("Trainable parameters", cost.trainable_parameters, figures.large, share),
        ("Saved files", cost.artefact_bytes, figures.memory, ""),
    ]
    measured = [(name, write(number), remark) for name, number, write, remark in lines if number is not None]
    return measured + [(name, "not measured", "") for name, number, _, _ in lines if number is None]
