"""What was done against forgetting, each with its own figure; the loss on general text stands beside them in the report."""

from collections.abc import Iterator

from etude.compose.replay import replay_sentence
from etude.data.order import Order
from etude.data.prepare import Prepared
from etude.engine.course import Outcome
from etude.recipe.schema import Stage


def against_forgetting(stage: Stage, prepared: Prepared, order: Order, outcome: Outcome) -> Iterator[str]:
    """A sentence for each thing that the recipe asked for."""
    if prepared.replayed is not None:
        yield replay_sentence(prepared.replayed, order, [examples for _, examples in prepared.train], outcome.drawn)
    if outcome.kept is not None:
        yield f"Early stopping: {outcome.kept.sentence}."
    if outcome.distance is not None:
        decay = f"Weight decay of {stage.train.weight_decay:g} towards the parent"
        yield f"{decay}: what was trained ended {outcome.distance:.2%} of its parent's size away from it."
