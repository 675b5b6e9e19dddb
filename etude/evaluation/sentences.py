"""What is said first: the verdict in plain words, the figures behind it, and what must not be overlooked."""

from collections.abc import Sequence
from typing import Literal

from etude.evaluation import figures
from etude.evaluation.judgement import Axis
from etude.evaluation.measured import Answers

FEW_ROWS = 50
FORM_SHARE = 0.1
UNFINISHED_SHARE = 0.02

TASK = {
    "better": "Better at the task",
    "worse": "Worse at the task",
    "cannot tell": "Cannot tell whether it is better at the task",
}


def headline(axes: Sequence[Axis]) -> tuple[Literal["better", "worse", "mixed", "cannot tell"], str]:
    """The overall verdict and its sentence; it rests on the first axis of the task and the first that is to be kept."""
    task, keep = _deciding(axes)
    line = f"{TASK[task.verdict]}, {_kept(keep)}."
    if keep is not None and _is_lost(keep):
        if task.verdict == "better":
            return "mixed", line
        lost = f"general ability was lost ({figures.difference(keep.unit, keep.difference.value)} a token)"
        if task.verdict == "worse":
            return "worse", f"{TASK[task.verdict]}, and {lost}."
        return (
            "worse",
            f"{figures.sentence_case(lost)}, and whether it is better at the task cannot be told.",
        )  # begins with what the verdict rests on
    return ("cannot tell" if task.verdict == "unchanged" else task.verdict), line


def _deciding(axes: Sequence[Axis]) -> tuple[Axis, Axis | None]:
    task = next(axis for axis in axes if axis.group == "task")
    return task, next((axis for axis in axes if axis.group == "keep"), None)


def _is_lost(keep: Axis) -> bool:
    """Whether what was to be kept got worse, and by more than the margin that was stated."""
    return keep.verdict == "worse" and keep.difference.value > (keep.margin or 0)


def _kept(keep: Axis | None) -> str:
    if keep is None:
        return "general ability not measured"
    by = f"{figures.difference(keep.unit, keep.difference.value)} a token"
    match keep.verdict:
        case "unchanged":
            return f"general ability unchanged within {figures.within(keep.unit, keep.margin or 0)} a token"
        case "better":
            return f"and better at general text ({by})"
        case "worse":
            return f"but general ability {'was lost' if _is_lost(keep) else 'fell a little'} ({by})"
        case "cannot tell":
            return f"and cannot tell whether general ability was kept ({by})"


def explanation(axes: Sequence[Axis], confidence: float) -> tuple[str, ...]:
    """A sentence with the figures for each axis that the headline rests on."""
    return tuple(sentence(axis, confidence) for axis in _deciding(axes) if axis is not None)


def sentence(axis: Axis, confidence: float) -> str:
    """One axis in words: from, to, difference, interval, p-value, rows, and what so many rows could have shown."""
    before, now = figures.value(axis.unit, axis.parent.value), figures.value(axis.unit, axis.tuned.value)
    moved = f"stayed at {now}" if before == now else f"{'rose' if axis.difference.value > 0 else 'fell'} from {before} to {now}"
    per_token = " nats a token" if axis.unit == "nats/token" else ""
    units = "passages" if axis.group == "keep" else "rows"
    found = (
        f"{figures.difference(axis.unit, axis.difference.value)}; {figures.confidence(confidence)} interval "
        f"{figures.difference_span(axis.unit, axis.difference)}; {figures.p_value(axis.p_value)}; {figures.count(axis.n)} {units}"
    )
    could = ""
    if axis.verdict == "cannot tell":
        could = f" So many {units} would show a true difference of about {figures.size(axis.unit, axis.smallest_difference)} or more."
    return f"{figures.sentence_case(axis.name)} {moved}{per_token} ({found}).{could}"


def warnings(axes: Sequence[Axis], answers: Answers | None) -> tuple[str, ...]:
    """What a reader must not overlook, the gravest first."""
    task, keep = _deciding(axes)
    said = [] if keep is None else _of_keeping(keep)
    for axis in axes:
        if axis.verdict == "worse" and axis not in (task, keep):
            said.append(f"Worse: {axis.name}, by {figures.difference(axis.unit, axis.difference.value)}.")
    if answers is not None:
        said += _of_answers(answers)
        said += next((_of_form(axis) for axis in axes if axis.unreadable_parent or axis.unreadable_tuned), [])
    if task.n < FEW_ROWS:
        said.append(f"Only {task.n} rows were judged; a few more or less change the figures. Hold out more (`data.held_out`).")
    return tuple(said)


def _of_keeping(keep: Axis) -> list[str]:
    margin = keep.margin or 0
    if _is_lost(keep):
        return [
            f"General ability was lost: the loss on general text rose by {figures.size(keep.unit, keep.difference.value)} a token "
            f"({figures.restated(keep.restated[0])}), beyond the stated {figures.within(keep.unit, margin)}. "
            "A lower learning rate, fewer steps, or general text mixed into the data keep more."
        ]
    if keep.verdict in ("worse", "cannot tell") and keep.difference.high > margin:
        return [
            f"A loss of general ability of up to {figures.size(keep.unit, keep.difference.high)} a token cannot be excluded; "
            "score more general text (`evaluate.keep.tokens`)."
        ]
    return []


def _of_answers(answers: Answers) -> list[str]:
    said, n = [], len(answers)
    before, now = answers.unfinished
    if now > UNFINISHED_SHARE * n or now > before:
        said.append(
            f"{now} of {n} answers of the tuned model ran into the token limit instead of stopping (parent: {before}): "
            "raise `evaluate.max_new_tokens`, or see whether the end of a turn is learnt (`etude data show`)."
        )
    if len(set(answers.tuned)) == 1 < len(set(answers.expected)):
        said.append(f"The tuned model gives every row the same answer, {answers.tuned[0][:60]!r}.")
    return said


def _of_form(axis: Axis) -> list[str]:
    """A gain in form alone is a gain, but not the one that the word accuracy promises."""
    said = []
    if axis.unreadable_tuned:
        said.append(f"In {axis.unreadable_tuned} of {axis.n} answers of the tuned model nothing could be read; they count as wrong.")
    if axis.unreadable_parent - axis.unreadable_tuned >= FORM_SHARE * axis.n:
        apart = ""
        if axis.readable is not None:
            both = f"{figures.value('share', axis.readable.parent)} → {figures.value('share', axis.readable.tuned)}"
            apart = f" On the {axis.readable.rows} rows where both could be read: {both}."
        said.append(
            f"Part of the difference is form: in {axis.unreadable_parent} of {axis.n} answers of the parent nothing could be read, "
            f"and they count as wrong, whatever the parent may know.{apart}"
        )
    return said
