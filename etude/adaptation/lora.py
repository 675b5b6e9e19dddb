"""LoRA: low-rank adaptation. https://arxiv.org/abs/2106.09685"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from peft import LoraConfig
from pydantic import Field, PositiveFloat, PositiveInt
from transformers import PreTrainedModel

from etude.adaptation.peft_adapter import PeftAdaptation, PeftAttached, attach_config, refuse_tied

QUANTISED = "quantisation.json"
"""Beside an adapter that was trained on a base in four bits, which whoever puts it back rounds in the same way first."""
# Linear layers that choose experts: a delta there reroutes tokens instead of teaching them.
_ROUTERS = r".*\.(gate|router|shared_expert_gate)$"


class Lora(PeftAdaptation):
    """A low-rank delta beside every chosen linear layer; the base stays frozen."""

    kind: ClassVar[str] = "lora"
    peft_type: ClassVar[str] = "LORA"
    rank: PositiveInt = 16
    """Of every delta."""
    alpha: PositiveFloat | None = None
    """The delta is scaled by alpha / rank; by default twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the delta's inputs that are dropped while training. Above 0 the cut into rows changes the masks."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Which linear layers: all but the head and the routers of experts, or those whose names end so."""

    @classmethod
    def reads(cls, folder: Path, peft_type: str | None) -> bool:
        return cls is Lora and super().reads(folder, peft_type) and not (folder / QUANTISED).is_file()

    @property
    def default_learning_rate(self) -> float:
        return 2e-4

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            attached = self._on(model, self._config(model))
        refuse_tied(model)
        return attached

    def _on(self, model: PreTrainedModel, config: LoraConfig) -> PeftAttached:
        return attach_config(model, config)

    def _config(self, model: PreTrainedModel, **variant: Any) -> LoraConfig:
        """peft's own options; `variant` are those that another kind of LoRA sets."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,  # type: ignore[arg-type] (peft scales by any number)
            lora_dropout=self.dropout,
            target_modules=self.targets,
            exclude_modules=_ROUTERS if self.targets == "all-linear" and _has_routers(model) else None,
            task_type="CAUSAL_LM",
            **variant,
        )


def _has_routers(model: PreTrainedModel) -> bool:
    return any(isinstance(module, torch.nn.Linear) and re.fullmatch(_ROUTERS, name) for name, module in model.named_modules())
