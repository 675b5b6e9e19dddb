"""Is the tuned model better than its parent? Builds the judgement from numbers and texts; loads no model."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from etude.errors import DataError
from etude.evaluation import sentences, statistics
from etude.evaluation.judgement import About, Axis, Divergence, Example, Judgement, Outcome, Readable, Restated
from etude.evaluation.measured import MORE_ROWS, MORE_TEXT, Answers, Likelihoods, Preferences
from etude.evaluation.metric import Metric, Reading
from etude.evaluation.preference import CHOSEN, REJECTED, Preferred

# Rows that only one model got right; below this many, resampling rows sees too little and a closed form is used.
FEW_CHANGED = 10
# Nats per token of general text that count as unchanged: about 5 % of perplexity.
KEEP_MARGIN = 0.05
GENERAL_LOSS = "loss on general text"
MOST_EXAMPLES = 500
ORDER: tuple[Outcome, ...] = ("lost", "gained", "both wrong", "changed", "both right", "same")
BOOTSTRAP = f"BCa bootstrap, {statistics.RESAMPLES:,} resamples"
RANDOMISATION = f"paired randomisation test, {statistics.RESAMPLES:,} swaps"


def judge(
    about: About,
    held_out: Likelihoods | None,
    answers: Answers | None = None,
    metrics: Sequence[Metric] = (),
    general: Likelihoods | None = None,
    preferences: Preferences | None = None,
    confidence: float = 0.95,
    margin: float = KEEP_MARGIN,
    seed: int = 0,
    usual: str | None = None,
) -> Judgement:
    """The judgement of a tuned model against its parent on the same rows.

    Args:
        held_out: likelihoods of the held-out rows; None where a head is read, and no text's likelihood.
        answers: what both wrote for held-out rows; None where nothing was generated.
        metrics: what is counted in the answers; the verdict rests on the first, or on the loss where there are none.
        preferences: of held-out pairs; where there are any, the verdict rests on them.
        general: likelihoods of general text; None where keeping is not measured.
        margin: nats per token of general text that count as unchanged.
        seed: of the resampling; equal inputs give equal judgements.
        usual: the label that most training rows have: whoever always gives it is the baseline of every metric too.

    DataError where there are fewer than two rows or an expected answer cannot be read; TrainingError where a likelihood is
    not a finite number.
    """
    axes, examples = [], []
    if preferences is not None:
        metric = Preferred(by_head=preferences.by_head)
        readings_of = lambda side: [metric.read(CHOSEN, CHOSEN if right else REJECTED) for right in side]
        before, now = preferences.parent, readings_of(preferences.tuned)
        axes.append(
            _against_chance(metric, now, confidence) if before is None else _count(metric, readings_of(before), now, confidence, seed)
        )
    if answers is not None:
        answers.check()
        check_expected(metrics, answers.places, answers.expected)
        readings = [_read(metric, answers) for metric in metrics]
        axes += [_count(metric, parent, tuned, confidence, seed) for metric, (parent, tuned) in zip(metrics, readings, strict=True)]
        if usual is not None:
            axes += [_against_usual(metric, usual, answers, tuned, confidence, seed) for metric, (_, tuned) in zip(metrics, readings)]
        examples = _examples(answers, readings[0] if readings else None)
    if held_out is not None:
        what = "loss on held-out answers" if held_out.bytes is None else "loss on held-out text"
        axes.append(_loss(what, "task", held_out, confidence, None, seed))
    if general is not None:
        axes.append(_loss(GENERAL_LOSS, "keep", general, confidence, margin, seed))
    outcomes = Counter(example.outcome for example in examples)
    verdict, headline = sentences.headline(axes)
    unfinished = (0, 0) if answers is None else answers.unfinished
    return Judgement(
        about=about,
        confidence=confidence,
        verdict=verdict,
        headline=headline,
        explanation=sentences.explanation(axes, confidence),
        warnings=(*sentences.warnings(axes, answers), *about.warnings),
        axes=tuple(axes),
        divergence=None if general is None or general.divergence is None else _divergence(general, general.divergence, confidence, seed),
        examples=tuple(examples[:MOST_EXAMPLES]),
        outcomes={outcome: outcomes[outcome] for outcome in ORDER if outcomes[outcome]},
        answers=len(examples),
        unfinished_parent=unfinished[0],
        unfinished_tuned=unfinished[1],
    )


def check_expected(metrics: Sequence[Metric], places: Sequence[str], expected: Sequence[str]) -> None:
    """DataError, naming the row, where a metric cannot read an expected answer. Worth asking before a model is trained."""
    for metric in metrics:
        for place, answer in zip(places, expected, strict=True):
            try:
                metric.read(answer, answer)
            except ValueError as error:
                raise DataError(
                    f"{place}: metric {metric.kind} cannot read the expected answer {answer[:80]!r}: {error}",
                    "mend the row, or name another metric under `evaluate.metrics`",
                ) from error


def _read(metric: Metric, answers: Answers) -> tuple[list[Reading], list[Reading]]:
    """The metric's readings of the parent's answers and of the tuned model's."""
    parent = [metric.read(*row) for row in zip(answers.expected, answers.parent, strict=True)]
    return parent, [metric.read(*row) for row in zip(answers.expected, answers.tuned, strict=True)]


def _count(metric: Metric, before: list[Reading], now: list[Reading], confidence: float, seed: int) -> Axis:
    """A metric's axis: Wilson and McNemar for rates, a randomisation test for the rest; the difference by bootstrap."""
    n = len(before)
    were, are = metric.features(before), metric.features(now)  # [n, F] each
    figures = statistics.side_by_side(metric.figure)
    parent, tuned, difference = statistics.bootstrap(np.concatenate([were, are], 1), figures, confidence, seed)
    method, fewest = BOOTSTRAP, 0.0
    if metric.is_rate:
        lost = sum(was.right and not is_.right for was, is_ in zip(before, now, strict=True))
        gained = sum(is_.right and not was.right for was, is_ in zip(before, now, strict=True))
        parent, tuned = (statistics.wilson(sum(reading.right for reading in side), n, confidence) for side in (before, now))
        p_value, fewest = statistics.mcnemar_p(lost, gained), statistics.fewest_changed(confidence) / n
        if lost + gained < FEW_CHANGED:
            difference = statistics.paired_rates(lost, gained, n, confidence)
            method = f"Bonett–Price interval, as only {lost + gained} rows changed"
        method += f"; exact McNemar test, {gained} rows gained and {lost} lost; Wilson intervals of each rate"
    else:
        p_value = statistics.randomisation_p(were, are, metric.figure, seed)
        method += f"; {RANDOMISATION}"
    return Axis(
        name=metric.title,
        group="task",
        unit="share" if metric.is_rate else "F1",
        higher_is_better=True,
        n=n,
        parent=parent,
        tuned=tuned,
        difference=difference,
        p_value=p_value,
        verdict=statistics.judge_difference(difference, p_value, confidence, higher_is_better=True),
        smallest_difference=max(fewest, statistics.smallest_difference(difference, confidence)),
        method=method,
        unreadable_parent=sum(reading.found is None for reading in before),
        unreadable_tuned=sum(reading.found is None for reading in now),
        readable=_readable(before, now) if metric.is_rate else None,
    )


def _against_chance(metric: Metric, now: list[Reading], confidence: float) -> Axis:
    """A rate of two choices against a coin: a newborn head likes neither, so there is no parent's figure to compare with."""
    n, right = len(now), sum(reading.right for reading in now)
    rate, half = statistics.wilson(right, n, confidence), statistics.Interval(value=0.5, low=0.5, high=0.5)
    difference = statistics.Interval(value=rate.value - 0.5, low=rate.low - 0.5, high=rate.high - 0.5)
    p_value = statistics.mcnemar_p(n - right, right)  # the same question: is the split unlike a fair coin's?
    return Axis(
        name=f"{metric.title}, against chance",
        group="task",
        unit="share",
        higher_is_better=True,
        n=n,
        parent=half,
        tuned=rate,
        difference=difference,
        p_value=p_value,
        verdict=statistics.judge_difference(difference, p_value, confidence, higher_is_better=True),
        smallest_difference=statistics.smallest_difference(difference, confidence),
        method="exact binomial test against 50 %, which is all that a parent without a head could say; Wilson interval",
    )


def _against_usual(metric: Metric, usual: str, answers: Answers, now: list[Reading], confidence: float, seed: int) -> Axis:
    """A metric's axis with, in the parent's place, whoever always gives the commonest label."""
    always = [metric.read(expected, usual) for expected in answers.expected]
    axis = _count(metric, always, now, confidence, seed)
    return axis.model_copy(update={"name": f"{axis.name}, against always “{usual}”"})


def _readable(before: list[Reading], now: list[Reading]) -> Readable | None:
    pairs = [(was, is_) for was, is_ in zip(before, now, strict=True) if was.found is not None and is_.found is not None]
    if not pairs or len(pairs) == len(before):
        return None
    right = [sum(reading.right for reading in side) / len(pairs) for side in zip(*pairs, strict=True)]
    return Readable(rows=len(pairs), parent=right[0], tuned=right[1])


def _loss(name: str, group: Literal["task", "keep"], texts: Likelihoods, confidence: float, margin: float | None, seed: int) -> Axis:
    """Loss per token of both, paired over rows, every token counting the same."""
    texts.check(name, MORE_ROWS if group == "task" else MORE_TEXT)
    before, now = (np.stack([side, texts.tokens], 1).astype(np.float64) for side in (texts.parent, texts.tuned))  # [n, 2] each
    figures = statistics.side_by_side(statistics.ratio_of_sums)
    parent, tuned, difference = statistics.bootstrap(np.concatenate([before, now], 1), figures, confidence, seed)
    p_value = statistics.randomisation_p(before, now, statistics.ratio_of_sums, seed)
    restated = [Restated(unit="perplexity", parent=_perplexity(parent.value), tuned=_perplexity(tuned.value))]
    if texts.bytes is not None:
        nats_to_bits = 1 / (np.log(2) * texts.bytes.sum())
        restated.append(_bits(before[:, 0].sum() * nats_to_bits, now[:, 0].sum() * nats_to_bits, texts))
    return Axis(
        name=name,
        group=group,
        unit="nats/token",
        higher_is_better=False,
        n=len(texts.tokens),
        tokens=int(texts.tokens.sum()),
        parent=parent,
        tuned=tuned,
        difference=difference,
        p_value=p_value,
        verdict=statistics.judge_difference(difference, p_value, confidence, higher_is_better=False, margin=margin),
        margin=margin,
        smallest_difference=statistics.smallest_difference(difference, confidence),
        method=f"{BOOTSTRAP}; {RANDOMISATION}",
        restated=tuple(restated),
    )


def _bits(parent: float, tuned: float, texts: Likelihoods) -> Restated:
    return Restated(unit="bits/byte", parent=parent, tuned=tuned, compressed=texts.compressed)


def _perplexity(loss: float) -> float:
    return float(np.exp(min(loss, 700.0)))  # e^709 is the largest float


def _divergence(texts: Likelihoods, divergence: np.ndarray, confidence: float, seed: int) -> Divergence:
    features = np.stack([divergence, texts.tokens], 1).astype(np.float64)
    [nats] = statistics.bootstrap(features, lambda sums: statistics.ratio_of_sums(sums)[..., None], confidence, seed)
    return Divergence(nats=nats, n=len(features), tokens=int(texts.tokens.sum()), method=BOOTSTRAP)


def _examples(answers: Answers, readings: tuple[list[Reading], list[Reading]] | None) -> list[Example]:
    """Rows with both answers, sorted by outcome: what was lost comes first."""
    examples = []
    for row in range(len(answers)):
        before, now = (None, None) if readings is None else (readings[0][row].right, readings[1][row].right)
        columns = {name: getattr(answers, name)[row] for name in ("expected", "parent", "tuned", "parent_stopped", "tuned_stopped")}
        outcome = _outcome(before, now, answers.parent[row] == answers.tuned[row])
        place, prompt = answers.places[row], answers.prompts[row]
        examples.append(Example(place=place, prompt=prompt, parent_right=before, tuned_right=now, outcome=outcome, **columns))
    return sorted(examples, key=lambda example: (ORDER.index(example.outcome), example.parent == example.tuned))


def _outcome(before: bool | None, now: bool | None, same: bool) -> Outcome:
    if before is None or now is None:
        return "same" if same else "changed"
    if before == now:
        return "both right" if now else "both wrong"
    return "lost" if before else "gained"
