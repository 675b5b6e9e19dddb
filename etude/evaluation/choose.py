"""Which metrics fit the expected answers, where the recipe names none? Decided by looking, and said aloud."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from etude.evaluation.answer_json import label_in, parse_strictly
from etude.evaluation.metric import Metric
from etude.evaluation.metrics.accuracy import Accuracy
from etude.evaluation.metrics.exact_match import ExactMatch
from etude.evaluation.metrics.macro_f1 import MacroF1
from etude.evaluation.metrics.valid_json import ValidJSON

MOST_LABELS = 20
ROWS_PER_LABEL = 3
LONGEST_LABEL = 40
LONGEST_MATCH = 120


@dataclass(frozen=True, slots=True)
class Choice:
    """Metrics and why; the first is the one that the verdict rests on."""

    metrics: tuple[Metric, ...]
    """Empty where no count of whole answers means much: then likelihood alone decides."""
    reason: str
    """A sentence for the user, naming what was seen."""


def choose(expected: Sequence[str]) -> Choice:
    """Metrics for these expected answers (one each row, not empty).

    Labels are few where there are 2 to 20 distinct ones and at least three rows for each.
    """
    objects = _objects(expected)
    if objects is not None:
        return _for_objects(objects)
    answers = [" ".join(answer.split()) for answer in expected]
    if _are_labels(answers):
        labels = _named(sorted(set(answers)))
        return Choice((Accuracy(), MacroF1()), f"the expected answers are {labels}, so labels are counted")
    typical = median(map(len, answers))
    if typical <= LONGEST_MATCH:
        reason = f"the expected answers are short texts of many kinds (typically {typical:.0f} characters), so exact matches are counted"
        return Choice((ExactMatch(),), reason)
    reason = (
        f"the expected answers are free text (typically {typical:.0f} characters), which has no one right wording, so likelihood decides"
    )
    return Choice((), reason)


def _for_objects(objects: list[dict[str, Any]]) -> Choice:
    fields = [field for field in objects[0] if all(field in each for each in objects)]
    columns = {field: [label_in(each, field) for each in objects] for field in fields}
    labelled = [field for field, labels in columns.items() if _are_labels(labels)]
    if not labelled:
        return Choice(
            (ExactMatch(), ValidJSON()),
            "the expected answers are JSON objects, and no field of theirs has few values, so exact matches and valid JSON are counted",
        )
    first, *more = labelled
    beside = f"; {_named(more)} could be counted too, with `evaluate.metrics`" if more else ""
    return Choice(
        (Accuracy(field=first), MacroF1(field=first), ValidJSON()),
        f"the expected answers are JSON objects whose field {first!r} is {_named(sorted(set(columns[first])))}, "
        f"so its labels are counted, and valid JSON{beside}",
    )


def _objects(expected: Sequence[str]) -> list[dict[str, Any]] | None:
    """All expected answers as JSON objects; None where any is something else."""
    objects = []
    for answer in expected:
        try:
            value = parse_strictly(answer)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        objects.append(value)
    return objects


def _are_labels(values: Sequence[str]) -> bool:
    distinct = set(values)
    few = 2 <= len(distinct) <= MOST_LABELS and len(distinct) * ROWS_PER_LABEL <= len(values)
    return few and all(0 < len(value) <= LONGEST_LABEL for value in distinct)


def _named(names: Sequence[str], most: int = 4) -> str:
    shown = [repr(name) for name in names[:most]]
    if len(names) > most:
        return f"one of {len(names)}: {', '.join(shown)} …"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
