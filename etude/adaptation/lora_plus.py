"""LoRA+: the second factor of each delta learns faster than the first. https://arxiv.org/abs/2402.12354"""

from typing import ClassVar

from pydantic import PositiveFloat
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora
from etude.adaptation.peft_adapter import PeftAttached


class LoraPlus(Lora):
    """B, which is zero at birth, takes steps `ratio` times as large as A's; `train.learning_rate` is A's."""

    kind: ClassVar[str] = "lora+"
    ratio: PositiveFloat = 16.0
    """Learning rate of B over that of A."""

    @property
    def default_learning_rate(self) -> float:
        return 5e-5

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        attached = super().attach(model, seed=seed)
        attached.rates |= {name: self.ratio for name in attached.trainable if ".lora_B." in name}
        return attached
