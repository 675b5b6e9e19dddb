"""What is known of an artefact against its parent: the nouns of a verdict, as they are stored beside the artefact."""

import json
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import ValidationError

from etude.errors import LineageError
from etude.evaluation.statistics import Interval, Verdict
from etude.recipe.strict import Strict

SCHEMA_VERSION = 1
NATS = "nats a token"

Unit = Literal["share", "F1", "nats/token"]
"""Shares and F1 are between 0 and 1 and shown in percent; nats are natural logarithms."""

Outcome = Literal["lost", "gained", "both wrong", "both right", "changed", "same"]
"""What became of a row: right before and wrong now, the reverse, …; `changed` and `same` where nothing counts right and wrong."""


class Restated(Strict):
    """The same measurement in another unit."""

    unit: Literal["perplexity", "bits/byte"]
    """Perplexity depends on the tokenizer, bits for each byte of text do not."""
    parent: float
    """Of the parent."""
    tuned: float
    """Of the tuned model."""
    compressed: float | None = None
    """In bits/byte, what `gzip -9` makes of the same text."""


class Readable(Strict):
    """A rate on those rows alone in which both models' answers could be read."""

    rows: int
    """How many they are."""
    parent: float
    """Share of them that the parent got right."""
    tuned: float
    """Share of them that the tuned model got right."""


class Axis(Strict):
    """One thing that was measured of both models on the same rows."""

    name: str
    """What was measured."""
    group: Literal["task", "keep"]
    """Whether it is what the stage was for, or what must not be lost."""
    unit: Unit
    """Of every figure but the p-value."""
    higher_is_better: bool
    """Which way is better."""
    n: int
    """Rows, or passages of general text, that both were measured on."""
    tokens: int | None = None
    """Tokens in them, where likelihoods were summed over tokens."""
    parent: Interval
    """The parent's figure."""
    tuned: Interval
    """The tuned model's figure."""
    difference: Interval
    """Tuned minus parent, paired over rows."""
    p_value: float
    """Two-sided, of no difference."""
    verdict: Verdict
    """What may be said of the difference."""
    margin: float | None = None
    """A difference within ± this counts as unchanged; null where none was stated."""
    smallest_difference: float
    """About the smallest true difference that this many rows would have shown, four times in five."""
    method: str
    """How interval and p-value were found."""
    restated: tuple[Restated, ...] = ()
    """The same in other units."""
    unreadable_parent: int = 0
    """The parent's answers in which nothing could be read; they count as wrong."""
    unreadable_tuned: int = 0
    """The same of the tuned model."""
    readable: Readable | None = None
    """The same rate where both could be read, if some answers could not: what is left of the difference without its form."""


class Divergence(Strict):
    """How far the tuned model's distributions moved from its parent's: a size, never a gain, so it has no verdict."""

    nats: Interval
    """KL(parent ‖ tuned) per token of general text, over the whole vocabulary."""
    n: int
    """Passages of general text."""
    tokens: int
    """Tokens in them."""
    method: str
    """How the interval was found."""


class Example(Strict):
    """One row, asked of both."""

    place: str
    """File and row."""
    prompt: str
    """What was asked."""
    expected: str
    """What should have been answered."""
    parent: str
    """What the parent answered."""
    tuned: str
    """What the tuned model answered."""
    parent_right: bool | None
    """By the first metric; null where no metric counts."""
    tuned_right: bool | None
    """The same of the tuned model."""
    parent_stopped: bool
    """Whether the parent ended its answer, rather than running into the token limit."""
    tuned_stopped: bool
    """The same of the tuned model."""
    outcome: Outcome
    """What became of the row."""


class Count(Strict):
    """One line of what was read, kept or dropped."""

    name: str
    """What was counted."""
    value: int
    """How many."""
    why: str = ""
    """The reason, where rows were dropped or cut."""


class Cost(Strict):
    """What the stage took; null is unmeasured, and shown as such."""

    seconds: float | None = None
    """Wall-clock time of training, without judging."""
    logical_tokens: int | None = None
    """Tokens as if nothing were shared."""
    computed_tokens: int | None = None
    """Tokens that went through the model."""
    supervised_tokens: int | None = None
    """Predictions that were learnt from."""
    peak_memory_bytes: int | None = None
    """Largest resident memory of the process, or allocated memory of the GPU."""
    trainable_parameters: int | None = None
    """Numbers that could change."""
    parameters: int | None = None
    """Numbers in the whole model."""
    artefact_bytes: int | None = None
    """Size of what was saved."""
    judging_seconds: float | None = None
    """Wall-clock time of scoring and answering, both models together."""


class Point(Strict):
    """A loss at a step."""

    step: int
    """Optimizer steps taken."""
    loss: float
    """In the unit of the curve."""


class Curve(Strict):
    """How the loss went."""

    train: tuple[Point, ...] = ()
    """On the rows of each step, before it was taken."""
    held_out: tuple[Point, ...] = ()
    """On rows that are never trained on."""
    unit: str = NATS
    """What the loss is counted in: nats per supervised token, or what the objective makes of a pair or an answer."""


class Written(Strict):
    """What the model wrote along the way."""

    step: int
    """Optimizer steps taken by then."""
    prompt: str
    """What it was given to go on from."""
    text: str
    """What it wrote behind it."""


class About(Strict):
    """What the caller knows of the two models and how the tuned one came about."""

    parent: str
    """Name of the parent."""
    tuned: str
    """Name of the tuned model."""
    made: str = ""
    """When, as ISO 8601."""
    cost: Cost = Cost()
    """What the stage took."""
    data: tuple[Count, ...] = ()
    """What was read, what was dropped and why."""
    curve: Curve = Curve()
    """How the loss went."""
    recipe: str = ""
    """The resolved recipe, as YAML."""
    environment: dict[str, str] = {}
    """Versions, device, threads, seed: name and value."""
    chat: str = ""
    """The command that talks with the result."""
    files: str = ""
    """Where the result lies."""
    samples: tuple[Written, ...] = ()
    """Continuations of the recipe's own beginnings, in the order of steps."""
    metrics_reason: str = ""
    """Why these metrics, where the recipe named none."""
    general_text: str = ""
    """What the general text was."""
    against_forgetting: tuple[str, ...] = ()
    """What the recipe did against forgetting, each with what was measured of it."""
    warnings: tuple[str, ...] = ()
    """What the run had to say: fallbacks, truncations, guards."""


class Judgement(Strict):
    """The verdict with everything it rests on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Of this file's layout."""
    about: About
    """What was compared."""
    confidence: float
    """Of every interval."""
    verdict: Literal["better", "worse", "mixed", "cannot tell"]
    """Over all: `mixed` is better at the task at the price of something that was to be kept."""
    headline: str
    """The verdict in one sentence."""
    explanation: tuple[str, ...]
    """The figures behind it, in sentences."""
    warnings: tuple[str, ...]
    """What a reader must not overlook, the gravest first."""
    axes: tuple[Axis, ...]
    """Everything that was compared; the first of the task is what the verdict rests on."""
    divergence: Divergence | None
    """How far the tuned model moved on general text; null where unmeasured."""
    examples: tuple[Example, ...]
    """Rows with both answers: first those that were lost, then gained, then otherwise different."""
    outcomes: dict[Outcome, int]
    """How many rows of each outcome there are, shown or not."""
    answers: int
    """Rows that both answered."""
    unfinished_parent: int
    """The parent's answers that ran into the token limit."""
    unfinished_tuned: int
    """The tuned model's."""

    def of(self, group: Literal["task", "keep"]) -> Iterator[Axis]:
        """The axes of one group, in their order."""
        return (axis for axis in self.axes if axis.group == group)

    def to_json(self) -> str:
        """Strict JSON, for `from_json`; equal judgements give equal text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, place: str = "the judgement") -> Self:
        """Reads `to_json` back. LineageError, naming `place`, where it is damaged or of another layout."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise LineageError(
                f"{place} cannot be read: {where}: {first['msg']} ({error.error_count()} problems)",
                f"judge again: this version of etude reads layout {SCHEMA_VERSION}",
            ) from error
