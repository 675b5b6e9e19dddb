"""(IA)³: learnt scales of keys, values and inner activations. https://arxiv.org/abs/2205.05638"""

from typing import Any, ClassVar

from peft import IA3Config
from pydantic import model_validator
from transformers import PreTrainedModel

from etude.adaptation.peft_adapter import PeftAdaptation, PeftAttached, attach_config


class IA3(PeftAdaptation):
    """A vector beside each chosen layer multiplies what it gives (or, in `feedforward`, what it is given): a few thousand numbers."""

    kind: ClassVar[str] = "ia3"
    peft_type: ClassVar[str] = "IA3"
    targets: list[str] | None = None
    """Layers whose names end so; by default those of peft's table for the architecture, often keys, values and the last inner one."""
    feedforward: list[str] | None = None
    """Those of `targets` whose inputs are scaled."""

    @model_validator(mode="after")
    def _feedforward_among_targets(self) -> "IA3":
        if odd := set(self.feedforward or ()) - set(self.targets or ()):
            raise ValueError(f"`feedforward` names {sorted(odd)[0]!r}, which is not among `targets`")
        return self

    @property
    def default_learning_rate(self) -> float:
        return 3e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        chosen: dict[str, Any] = {}
        if self.targets is not None:
            chosen = {"target_modules": self.targets, "feedforward_modules": self.feedforward or []}
        return attach_config(model, IA3Config(task_type="CAUSAL_LM", **chosen))
