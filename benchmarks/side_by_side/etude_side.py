"""How does etude run a plan? As a stage does: its own loading, probe, LoRA, optimizer and step, with a recipe's defaults."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from etude import catalog
from etude.adaptation.reload import reattach
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.optimizer import make_optimizer
from etude.engine.reference import StoredReference
from etude.engine.step import take_step
from etude.model import attention
from etude.model.device import choose_dtype
from etude.model.load import load
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.objective.contract import Objective
from etude.recipe.data import Data
from etude.recipe.schema import Train
from side_by_side.plan import Plan
from side_by_side.worker import Turns


def run(
    side: str, work: Path, turns: Turns, plan: Plan, objective: Objective, steps: Iterable[list[Example]], *, shared: bool = True
) -> dict[str, object]:
    """Take every step in its turn and leave the adapter in `work`, under the side's name.

    Args:
        side: computes in float32 where its name says so, else in the type that a recipe's default takes here.
        steps: the plan's, as etude's own examples.
        shared: False lays every sample out alone, in rows as full as ever.
    """
    torch.set_num_threads(plan.threads)
    cpu = torch.device("cpu")
    dtype, why = choose_dtype("float32" if side.endswith("float32") else "auto", cpu)
    loaded = load(plan.model, dtype=dtype, device=cpu, bases=work, attention=attention.NAME)
    layout = choose_layout(loaded.model)
    attached = reattach(loaded.model, Path(plan.birth))
    policy = Policy(loaded.model, layout=layout.name, compute=dtype)
    settings = Train.model_validate({}, context={"tables": catalog.TABLES})
    optimizer = make_optimizer(attached, settings, plan.learning_rate)
    parameters = list(attached.trainable.values())
    cut = Cut(settings.tokens_per_row, Data.model_fields["minimum_shared"].default if shared else sys.maxsize, layout.name)
    stored: dict[int, StoredReference] = {}  # as a stage does whose rows come more than once: the parent scores them once
    prepared = list(steps)
    loaded.model.train()
    turns.hand_over(ready=True)
    computed = 0
    for examples in prepared:
        began, reference = time.perf_counter(), None
        if objective.needs_reference:
            if id(examples) not in stored:
                with torch.no_grad(), attached.off():
                    stored[id(examples)] = StoredReference(examples, StoredReference.compute(policy, examples, cut))
            reference = stored[id(examples)]
        result = take_step(policy, objective, examples, cut, optimizer, parameters, reference=reference, clip=settings.clip)
        turns.hand_over(seconds=time.perf_counter() - began, loss=result.metrics["loss"])
        computed += result.computed_tokens
    (work / side).mkdir()
    attached.save(work / side)
    return {"settings": {"compute": why, "layout": layout.name}, "computed_tokens_per_step": round(computed / len(prepared), 1)}
