"""What changes the model's own weights is saved as a whole model, and has no way back to its parent."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation, Attached
from etude.errors import ModelError


class WholeAttached(Attached):
    """The model itself is what was trained."""

    @property
    def is_adapter(self) -> bool:
        return False

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class WholeAdaptation(Adaptation):
    """Holds the weights in float32, whatever the compute type."""

    @property
    def holds_masters(self) -> bool:
        return True

    @property
    def keeps_parent(self) -> bool:
        return False

    @property
    def default_learning_rate(self) -> float:
        return 1e-5


def attach_where(model: PreTrainedModel, chosen: Callable[[str], bool], remedy: str) -> WholeAttached:
    """Train the parameters that `chosen` says, by name.

    Raises:
        ModelError: there are none.
    """
    model.float().requires_grad_(False)
    trainable = {name: p for name, p in model.named_parameters() if chosen(name)}
    if not trainable:
        raise ModelError("no parameter of the model is chosen to change", remedy)
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    return WholeAttached(model, trainable)
