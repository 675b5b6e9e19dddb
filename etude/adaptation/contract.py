"""What an adaptation is: a choice of which parameters may change, and how they are kept."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from etude.recipe.strict import Leaf


@dataclass(slots=True, eq=False)
class Attached:
    """A model with an adaptation on it. The model stays the transformers model it was; only its layers may differ."""

    model: PreTrainedModel
    trainable: dict[str, nn.Parameter]
    """By their names in the model, in the model's order; float32."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user: what could not be adapted, and why."""
    rates: dict[str, float] = field(default_factory=dict)
    """By what the learning rate is multiplied, for those parameters that learn at a rate of their own."""

    @property
    def is_adapter(self) -> bool:
        """Whether what is saved stands on its parent; else it is a whole model."""
        return True

    @property
    def trainable_count(self) -> int:
        return sum(p.numel() for p in self.trainable.values())

    @property
    def can_switch_off(self) -> bool:
        """Whether `off` gives the parent back."""
        return False

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within this the model is its parent again."""
        raise NotImplementedError(f"{type(self).__name__} rewrites its parent")
        yield

    def merged(self) -> PreTrainedModel:
        """The model with what was learnt melted into its weights; the adaptation is gone afterwards."""
        return self.model

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was trained in the ecosystem's own layout; the folder exists."""


class Adaptation(Leaf):
    """Options of a way to adapt. `attach` is the only way on to a model, for training, resuming, loading and serving alike."""

    @property
    @abstractmethod
    def default_learning_rate(self) -> float:
        """Peak rate where the recipe names none."""

    @property
    def holds_masters(self) -> bool:
        """True where the model's own weights are trained and so must be held in float32."""
        return False

    @property
    def keeps_parent(self) -> bool:
        """False where the parent itself is changed, by training or already by attaching: what is asked of it is asked before."""
        return True

    @abstractmethod
    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        """Put a newborn adaptation on a frozen model. The result computes what the model computed, until it is trained."""
