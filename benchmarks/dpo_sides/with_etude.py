"""How does etude run the plan? Both answers on one prompt; the parent scores each pair once, in the first pass."""

from pathlib import Path

import numpy as np

from dpo_sides.pairs import BETA, Pair
from etude.core.sample import Example, Sample
from etude.objective.dpo import DPO
from side_by_side import etude_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`."""
    plan = Plan.read(work, Pair)
    once = [[_example(pair, number) for number, pair in enumerate(step, 1)] for step in plan.batches]
    return etude_side.run(side, work, turns, plan, DPO(beta=BETA), once * plan.passes)


def _example(pair: Pair, number: int) -> Example:
    answers = {"chosen": pair.chosen, "rejected": pair.rejected}
    return Example(tuple(_sample(pair.prompt, answer, role) for role, answer in answers.items()), "benchmark", number)


def _sample(prompt: list[int], answer: list[int], role: str) -> Sample:
    weights = np.asarray([0] * len(prompt) + [1] * len(answer), np.float32)
    return Sample(np.asarray(prompt + answer, np.int32), weights, role)
