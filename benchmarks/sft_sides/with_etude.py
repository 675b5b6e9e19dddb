"""How does etude run the plan?"""

from pathlib import Path

import numpy as np

from etude.core.sample import Example, Sample
from etude.objective.next_token import NextToken
from sft_sides.rows import IGNORED, Row
from side_by_side import etude_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`."""
    plan = Plan.read(work, Row)
    steps = [[_example(row, number) for number, row in enumerate(step, 1)] for step in plan.steps]
    return etude_side.run(side, work, turns, plan, NextToken(), steps)


def _example(row: Row, number: int) -> Example:
    weights = np.asarray([label != IGNORED for label in row.labels], np.float32)
    return Example((Sample(np.asarray(row.tokens, np.int32), weights),), "benchmark", number)
