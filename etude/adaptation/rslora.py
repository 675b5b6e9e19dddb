"""rsLoRA: a LoRA whose scale does not shrink as its rank grows. https://arxiv.org/abs/2312.03732"""

from typing import Any, ClassVar

from peft import LoraConfig
from pydantic import PositiveFloat
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora


class RankStabilisedLora(Lora):
    """Scales the delta by alpha / √rank instead of alpha / rank: for high ranks."""

    kind: ClassVar[str] = "rslora"
    alpha: PositiveFloat = 8.0  # type: ignore[bad-override] (it does not follow the rank here)
    """The delta is scaled by alpha / √rank: by 2 at rank 16, as a LoRA's is, and less at higher ranks."""

    def _config(self, model: PreTrainedModel, **variant: Any) -> LoraConfig:
        return super()._config(model, use_rslora=True, **variant)
