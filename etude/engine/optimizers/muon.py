"""Muon for the matrices between layers, AdamW for the rest."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt

from etude.engine.optimizers.adamw import adamw
from etude.engine.optimizers.contract import Group, OptimizerChoice
from etude.recipe.schema import Train


class Muon(OptimizerChoice):
    """Momentum whose singular values are all made one. Embeddings, head, virtual tokens, vectors and stacks of experts go by AdamW.

    torch's own (https://kellerjordan.github.io/posts/muon/), its steps as long as AdamW's (https://arxiv.org/abs/2502.16982, section 2.2),
    so that one learning rate serves both.
    """

    kind: ClassVar[str] = "muon"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Of the gradients, before they are made orthogonal."""
    iterations: PositiveInt = 5
    """Of Newton and Schulz, towards singular values of one."""

    def build(self, groups: list[Group], train: Train) -> torch.optim.Optimizer:
        ours, rest = [group for group in groups if group.hidden], [group for group in groups if not group.hidden]
        parts: list[torch.optim.Optimizer] = [adamw(rest, train)] if rest else []
        if ours:
            options: Any = [group.options(train) for group in ours]
            how: Any = {"momentum": self.momentum, "ns_steps": self.iterations, "adjust_lr_fn": "match_rms_adamw"}
            parts.append(torch.optim.Muon(options, **how))
        return Together(parts) if len(parts) > 1 else parts[0]


class Together(torch.optim.Optimizer):
    """Optimizers over parameters of their own that step as one and keep one state."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]  # the parts' own: a rate set here is set there
        for part in parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "gradients are there already"
        for part in self.parts:
            part.step()
