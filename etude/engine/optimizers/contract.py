"""What an optimizer is: from groups of parameters, each with its own rate and decay, to something that steps."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from etude.recipe.schema import Train
from etude.recipe.strict import Leaf


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are treated alike."""

    parameters: list[nn.Parameter]
    factor: float
    """By what the learning rate is multiplied."""
    decays: bool
    """Whether weight decay pulls them towards zero."""
    hidden: bool
    """Whether they are matrices between layers: neither embeddings, nor the head, nor vectors."""

    def options(self, train: Train) -> dict[str, object]:
        """The group as torch's optimizers take it; `factor` is read when the rate is set."""
        return {"params": self.parameters, "weight_decay": train.weight_decay if self.decays else 0.0, "factor": self.factor}


class OptimizerChoice(Leaf):
    """A way to step."""

    @abstractmethod
    def build(self, groups: list[Group], train: Train) -> torch.optim.Optimizer:
        """One optimizer over all groups; its state is plain tensors by parameter, so that it can be saved by name."""
