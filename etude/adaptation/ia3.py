"""(IA)³: learnt scales of keys, values and inner activations. https://arxiv.org/abs/2205.05638"""

from typing import ClassVar

from peft import IA3Config
from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation
from etude.adaptation.peft_adapter import PeftAttached, attach_config


class IA3(Adaptation):
    """A vector beside each chosen layer multiplies what it gives (or, in `feedforward`, what it is given): a few thousand numbers."""

    kind: ClassVar[str] = "ia3"
    targets: list[str] | None = None
    """Layers whose names end so; by default keys, values and the last of the inner layers, where peft knows the architecture."""
    feedforward: list[str] | None = None
    """Those of `targets` whose inputs are scaled."""

    @property
    def default_learning_rate(self) -> float:
        return 3e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        return attach_config(model, IA3Config(target_modules=self.targets, feedforward_modules=self.feedforward, task_type="CAUSAL_LM"))
