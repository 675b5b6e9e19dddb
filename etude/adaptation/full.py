"""Full tuning: every weight may change."""

from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation, Attached


class FullAttached(Attached):
    """The model itself is what was trained."""

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class Full(Adaptation):
    """All weights change; a float32 master of each is kept, whatever the compute type."""

    kind: ClassVar[str] = "full"

    @property
    def default_learning_rate(self) -> float:
        return 1e-5

    @property
    def holds_masters(self) -> bool:
        return True

    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        model.float().requires_grad_(True)
        return FullAttached(model, dict(model.named_parameters()))
