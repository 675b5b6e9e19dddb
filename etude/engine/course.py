"""The nouns of a run: what it needs, what it has done, what a hook is shown, how it ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude.adaptation.contract import Attached
from etude.core.sample import Example
from etude.data.order import Order
from etude.data.rows import Cut
from etude.engine.reference import Reference
from etude.engine.rollouts import Rollouts
from etude.engine.stopping import Kept
from etude.engine.teacher import Teacher
from etude.model.policy import Policy
from etude.objective.contract import Objective
from etude.recipe.schema import Train


@dataclass(slots=True)
class Totals:
    """What a run has done so far; carried through checkpoints."""

    logical_tokens: int = 0
    computed_tokens: int = 0
    supervised_tokens: int = 0
    predictions: int = 0
    """Distinct ones."""
    pairs: int = 0
    """Of a query and a key that it sees."""
    seconds: float = 0.0
    """Of training alone, over all sittings."""
    refused_steps: int = 0
    """Steps not taken: a gradient that was not finite, or a spike."""
    smaller_rows: int = 0
    """Times the device ran out of memory and rows were cut in half."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a hook is shown."""

    step: int
    """Steps done, from 1; 0 before the first."""
    steps: int
    metrics: dict[str, float]
    totals: Totals


Hook = tuple[Callable[[Moment], dict[str, float] | None], int]
"""A function and the number of steps between its calls; before the first step and after the last it is called in any case,
and with an interval of 0 only then. What it returns is journalled with the step and shown to the hooks after it."""


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Everything a run needs, built by whoever composes it."""

    policy: Policy
    attached: Attached
    objective: Objective
    sources: Sequence[Sequence[Example]]
    order: Order
    train: Train
    steps: int
    examples: int
    """To be drawn in all, the last step takes what is left; where steps are counted in tokens, about as many."""
    learning_rate: float
    cut: Cut
    folder: Path
    reference: Reference | None = None
    teacher: Teacher | None = None
    """Where the objective learns from another model's distributions."""
    rollouts: Rollouts | None = None
    """Writes what is learnt from, where the objective samples."""
    hooks: Sequence[Hook] = ()
    say: Callable[[str], None] = field(default=lambda _line: None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    steps: int
    drawn: int
    """Examples in all, those that a guard passed over among them."""
    finished: bool
    """Whether the last step is done."""
    stopped: bool
    """Whether it was asked to stop, also where that came in the last step: nothing more is to be begun; the same command goes on."""
    totals: Totals
    metrics: dict[str, float]
    """Of the last step."""
    distance: float | None = None
    """From the parent, over what was pulled there, as a share of its size; None where nothing was."""
    kept: Kept | None = None
    """Which weights were the best, where the recipe asks for early stopping; the model has them."""
    events: tuple[str, ...] = ()
    """Steps that were not taken and why, and when the run went back."""
