"""How does etude take the update? All answers to a prompt are one example, so that what they share is computed once."""

from pathlib import Path

import numpy as np

from etude.core.sample import Example, Sample
from etude.objective.grpo import GRPO
from grpo_sides.answers import Answer
from side_by_side import etude_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`.

    Without sharing every answer is an example of its own, so that rows are as full as etude's default makes them, no larger.
    """
    plan, shared = Plan.read(work, Answer), side != "etude unshared"
    steps = [_examples(step, together=shared) for step in plan.steps]
    return etude_side.run(side, work, turns, plan, GRPO(), steps, shared=shared)


def _examples(answers: list[Answer], *, together: bool) -> list[Example]:
    samples = [_sample(answer) for answer in answers]
    alone = [samples] if together else [[sample] for sample in samples]
    return [Example(tuple(some), "benchmark", number) for number, some in enumerate(alone, 1)]


def _sample(answer: Answer) -> Sample:
    nothing = [0.0] * len(answer.prompt)
    weights = np.asarray(nothing + [1.0] * len(answer.tokens), np.float32)
    old = np.asarray(nothing + answer.old, np.float32)
    return Sample(np.asarray(answer.prompt + answer.tokens, np.int32), weights, value=answer.advantage, old=old)
