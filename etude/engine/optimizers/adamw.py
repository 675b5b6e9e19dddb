"""AdamW for everything."""

from typing import ClassVar

import torch

from etude.engine.optimizers.contract import Group, OptimizerChoice
from etude.recipe.schema import Train


class AdamW(OptimizerChoice):
    """Adam with decoupled decay; `beta1`, `beta2` and `epsilon` of `train` are its own. https://arxiv.org/abs/1711.05101"""

    kind: ClassVar[str] = "adamw"

    def build(self, groups: list[Group], train: Train) -> torch.optim.Optimizer:
        return adamw(groups, train)


def adamw(groups: list[Group], train: Train) -> torch.optim.AdamW:
    """torch's own, fused: one pass over each parameter."""
    options = [group.options(train) for group in groups]
    return torch.optim.AdamW(options, betas=(train.beta1, train.beta2), eps=train.epsilon, fused=True)
