"""How does etude run the plan? As a stage does: its own loading, probe, LoRA, optimizer and step, with a recipe's defaults."""

import time
from pathlib import Path

import numpy as np
import torch

from etude import catalog
from etude.adaptation.reload import reattach
from etude.core.sample import Example, Sample
from etude.data.rows import Cut
from etude.engine.optimizer import make_optimizer
from etude.engine.step import take_step
from etude.model import attention
from etude.model.device import choose_dtype
from etude.model.load import load
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.next_token import NextToken
from etude.recipe.schema import Data, Train
from sft_sides.rows import IGNORED, Plan, Row
from sft_sides.worker import Turns


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work` and leave the adapter there, under the side's name."""
    plan = Plan.read(work)
    torch.set_num_threads(plan.threads)
    cpu = torch.device("cpu")
    dtype, why = choose_dtype("float32" if side == "etude float32" else "auto", cpu)
    loaded = load(plan.model, dtype=dtype, device=cpu, bases=work, attention=attention.NAME)
    layout = choose_layout(loaded.model)
    attached = reattach(loaded.model, Path(plan.birth))
    policy = Policy(loaded.model, layout=layout.name, compute=dtype)
    settings = Train.model_validate({}, context={"tables": catalog.TABLES})
    optimizer = make_optimizer(attached, settings, plan.learning_rate)
    parameters = list(attached.trainable.values())
    cut = Cut(settings.tokens_per_row, Data.model_fields["minimum_shared"].default, layout.name)
    objective = NextToken()
    steps = [[_example(row, number) for number, row in enumerate(step, 1)] for step in plan.steps]
    loaded.model.train()
    turns.hand_over(ready=True)
    computed = 0
    for examples in steps:
        began = time.perf_counter()
        result = take_step(policy, objective, examples, cut, optimizer, parameters, clip=settings.clip)
        turns.hand_over(seconds=time.perf_counter() - began, loss=result.metrics["loss"])
        computed += result.computed_tokens
    (work / side).mkdir()
    attached.save(work / side)
    return {"settings": {"compute": why, "layout": layout.name}, "computed_tokens": computed}


def _example(row: Row, number: int) -> Example:
    weights = np.asarray([label != IGNORED for label in row.labels], np.float32)
    return Example((Sample(np.asarray(row.tokens, np.int32), weights),), "benchmark", number)
