"""From measurements and the story of a run to its judgement and report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedTokenizerBase

from etude.compose.judging import Measured
from etude.compose.trial import Trial, units
from etude.data.counts import Counts
from etude.data.records import Question
from etude.engine.journal import read
from etude.evaluation import figures
from etude.evaluation.choose import choose
from etude.evaluation.general_text import GeneralText
from etude.evaluation.judge import KEEP_MARGIN, judge
from etude.evaluation.judgement import NATS, About, Cost, Count, Curve, Judgement, Point, Written
from etude.evaluation.measured import Answers, Likelihoods, Preferences
from etude.evaluation.metrics.accuracy import Accuracy
from etude.evaluation.metrics.macro_f1 import MacroF1
from etude.evaluation.report import write_report
from etude.recipe.schema import Evaluate


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """What the report tells besides the comparison."""

    parent: str
    tuned: str
    made: str
    cost: Cost
    counts: Counts | None
    journal: Path | None
    unit: str
    """Of the losses in the journal."""
    recipe: Mapping[str, Any]
    environment: dict[str, str]
    chat: str
    files: str
    warnings: tuple[str, ...]
    grave: tuple[str, ...] = ()
    """What must be read before the figures: warnings that come first."""
    against_forgetting: tuple[str, ...] = ()
    """What the recipe did against forgetting, and what was measured of it."""
    samples: tuple[Written, ...] = ()
    """What the model wrote along the way."""
    before: Mapping[str, float] = field(default_factory=dict)
    """By how many nats a token the loss on general text rose in each stage that the parent stands on."""


def judged(
    story: Story,
    trial: Trial,
    parent: Measured,
    tuned: Measured,
    divergence: Any,
    text: GeneralText | None,
    tokenizer: PreTrainedTokenizerBase,
    settings: Evaluate,
) -> Judgement:
    """Compare two models' measurements of one trial."""
    expected = [question.expected for question in trial.questions]
    metrics, reason = settings.metrics, ""
    if expected and metrics is None:
        choice = choose(expected)
        metrics, reason = list(choice.metrics), choice.reason
    if trial.choices and settings.metrics is None:
        metrics, reason = [Accuracy(), MacroF1()], "each question is answered by one of the labels, so labels are counted"
    answers = None
    if expected:
        written = [[str(tokenizer.decode(answer.tokens, skip_special_tokens=True)) for answer in side.answers] for side in (parent, tuned)]
        answers = Answers(
            places=[f"{Path(question.source).name}:{question.row}" for question in trial.questions],
            prompts=[_shown(question) for question in trial.questions],
            expected=expected,
            parent=written[0],
            tuned=written[1],
            parent_stopped=[answer.stopped for answer in parent.answers],
            tuned_stopped=[answer.stopped for answer in tuned.answers],
        )
    general = None
    if len(trial.general):
        general = Likelihoods(parent.general, tuned.general, parent.general_tokens, trial.general_bytes, divergence)
    about = About(
        parent=_short(story.parent),
        tuned=_short(story.tuned),
        made=story.made,
        cost=story.cost,
        data=_counted(story.counts),
        curve=curve(story.journal, story.unit),
        recipe=yaml.safe_dump(dict(story.recipe), sort_keys=False, allow_unicode=True),
        environment=story.environment,
        chat=story.chat,
        files=story.files,
        metrics_reason=reason,
        samples=story.samples,
        general_text=f"{text.sentence}; {len(trial.general):,} passages of it were scored" if text is not None else "",
        against_forgetting=story.against_forgetting,
        warnings=(*story.warnings, *_of_one_text(trial, story.counts), *_of_heads(trial, parent)),
    )
    unit, held_out = units(trial.held_out), None
    if not trial.by_head:
        sizes = None if trial.held_out_bytes is None else np.bincount(unit, weights=trial.held_out_bytes)
        sums = (np.bincount(unit, weights=summed) for summed in (parent.held_out, tuned.held_out, parent.weight))
        held_out = Likelihoods(*sums, bytes=sizes, compressed=trial.compressed)
    preferences = None
    if tuned.preferred is not None:
        preferences = Preferences(parent.preferred, tuned.preferred, trial.by_head)
    margin = settings.keep.margin if settings.keep is not None else KEEP_MARGIN
    usual = trial.usual if trial.choices else None
    options = dict(confidence=settings.confidence, margin=margin, usual=usual)
    judgement = judge(about, held_out, answers, metrics or (), general, preferences, **options)
    return judgement.model_copy(update={"warnings": (*story.grave, *_over_stages(judgement, story.before), *judgement.warnings)})


def _over_stages(judgement: Judgement, before: Mapping[str, float]) -> list[str]:
    """Small losses, each within its margin, that are a large one together."""
    keep = next(judgement.of("keep"), None)
    earlier = sum(before.values())
    if keep is None or keep.margin is None or earlier <= 0 or keep.difference.value + earlier <= keep.margin:
        return []
    rise = lambda nats: figures.difference(keep.unit, nats)
    said = "; ".join([*(f"{name} {rise(nats)}" for name, nats in before.items()), f"now {rise(keep.difference.value)}"])
    return [
        f"General ability was lost over the stages together: since the base, the loss on general text rose by "
        f"{figures.size(keep.unit, earlier + keep.difference.value)} a token ({said}), beyond the stated "
        f"{figures.within(keep.unit, keep.margin)}. The figures of this judgement compare with the parent alone."
    ]


def _of_one_text(trial: Trial, counts: Counts | None) -> list[str]:
    """What a reader must know where the only rows are pieces of one text."""
    rows = {(one.source, one.row) for one in trial.held_out}
    if len(rows) > 1 and not (counts is not None and counts.total("stretches")):
        return []
    said = f"All {len(trial.held_out)} pieces that were judged are of one text: interval and test speak of it alone. Hold out several."
    return [said]


def _of_heads(trial: Trial, parent: Measured) -> list[str]:
    """What the parent's figures are where it has no head and its child has."""
    if parent.by_head or not trial.by_head:
        return []
    if trial.choices:
        return ["The parent has no head: its labels are those whose words it finds likeliest. What only tells labels writes no text."]
    return ["The parent has no reward head, and a newborn one likes neither answer: the comparison is with chance (50 %)."]


def _short(reference: str) -> str:
    """A file or folder by its name, a commit by its beginning; artefacts and hub ids as they are."""
    if reference.startswith(("/", "package:")):
        return Path(reference).name
    return re.sub(r"@([0-9a-f]{8})[0-9a-f]{32}$", r"@\1", reference)


def _shown(question: Question) -> str:
    """What was asked, as a person would read it: a lone question as it is, turns with their roles."""
    if len(question.messages) == 1:
        return str(question.messages[0].get("content", ""))
    return "\n\n".join(f"{message['role']}: {message.get('content', '')}" for message in question.messages)


def curve(journal: Path | None, unit: str = NATS) -> Curve:
    """The loss along a run, as its journal has it, in its objective's unit."""
    lines: Sequence[dict[str, Any]] = read(journal) if journal is not None and journal.exists() else ()
    points = lambda name: tuple(Point(step=line["step"], loss=line[name]) for line in lines if line.get(name) is not None)
    # Any other look at held-out rows would be another scale than the loss's.
    looked = {NATS: "held_out_loss", "nats a label": "held_out_loss_labels"}.get(unit)
    return Curve(train=points("loss"), held_out=points(looked) if looked is not None else (), unit=unit)


def _counted(counts: Counts | None) -> tuple[Count, ...]:
    if counts is None:
        return ()
    names = ("read", "left_out_by_where", "left_out_by_limit", "too_long", "last_turn_too_long", "truncated", "split_documents", "unrolled")
    names += ("duplicates_of_held_out", "duplicates_in_training", "training", "held_out", "logical_tokens", "supervised_tokens")
    found = [Count(name=name.replace("_", " "), value=counts.total(name)) for name in names if counts.total(name)]
    weighed = [(one, f"{one.path}: each counts {one.loss_weight:g}") for one in counts.sources if one.loss_weight != 1.0 and one.training]
    found += [Count(name="at a loss weight", value=one.supervised_tokens, why=why) for one, why in weighed]
    return (*found, *(Count(name="left out", value=number, why=kind) for kind, number in counts.bad.items()))


def write(judgement: Judgement, folder: Path) -> None:
    """`judgement.json` and `report.html`, beside the weights."""
    (folder / "judgement.json").write_text(judgement.to_json(), encoding="utf-8")
    write_report(judgement, folder / "report.html")


def headline_metrics(judgement: Judgement) -> dict[str, float | int | str | None]:
    """What the project's index keeps of a judgement."""
    figures: dict[str, float | int | str | None] = {"verdict": judgement.verdict}
    for axis in judgement.axes:
        figures |= {axis.name: axis.tuned.value, f"{axis.name} (parent)": axis.parent.value}
    return figures
