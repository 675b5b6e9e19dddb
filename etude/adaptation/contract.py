"""What an adaptation is: a choice of which parameters may change, and how they are kept."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
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
    origins: dict[str, Tensor] = field(default_factory=dict)
    """What is not trained but was computed at birth: a run that goes on gets the same, whatever it would compute now."""
    newborn: set[str] = field(default_factory=set)
    """Heads that no parent has, by their names among `trainable`: born at zero, where decay pulls them to whatever the adaptation is."""

    def decays(self, name: str) -> bool:
        """Whether zero is where a parameter has nothing to say, so that weight decay may pull it there. Vectors never are."""
        return self.trainable[name].dim() >= 2

    def origin(self, name: str) -> Tensor | None:
        """What a parameter is in the parent, asked at birth, when the whole is the parent; None where zero is that as well.

        Raises:
            TrainingError: the whole is not its parent at birth, so there is nothing to go back to.
        """
        return None if self.is_adapter and self.decays(name) else self.trainable[name].detach().clone()

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

    @property
    def melts_into(self) -> str:
        """Which weights `merged` melts it into, in words."""
        return "its parent's weights"

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
    def born_of_weights(self) -> bool:
        """True where attaching reads all of the model's weights, which so must all be there."""
        return False

    @property
    def virtual_tokens(self) -> int:
        """Places of the model's context that it takes before every sample."""
        return 0

    @property
    def can_be_parent(self) -> bool:
        """False where nothing can be trained on top of it, because it cannot be melted into weights."""
        return True

    @classmethod
    def reads(cls, folder: Path, peft_type: str | None) -> bool:
        """Whether this class puts back what lies in `folder`; `peft_type` is what peft calls it, None where peft does not know it."""
        return False

    @classmethod
    def reload(cls, model: PreTrainedModel, folder: Path) -> Attached:
        """Put back what lies in `folder`, by the arithmetic that trained it.

        Raises:
            ModelError: it does not fit this model.
        """
        raise NotImplementedError(f"{cls.kind} is saved as a whole model")

    @property
    def keeps_parent(self) -> bool:
        """False where the parent itself is changed, by training or already by attaching: what is asked of it is asked before."""
        return True

    @abstractmethod
    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        """Put a newborn adaptation on a frozen model. The result computes what the model computed, until it is trained."""
