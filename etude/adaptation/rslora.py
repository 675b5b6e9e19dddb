"""rsLoRA: a LoRA whose scale does not shrink as its rank grows. https://arxiv.org/abs/2312.03732"""

from typing import Any, ClassVar

from peft import LoraConfig
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora


class RankStabilisedLora(Lora):
    """Scales the delta by alpha / √rank instead of alpha / rank: for high ranks."""

    kind: ClassVar[str] = "rslora"

    def _config(self, model: PreTrainedModel, **variant: Any) -> LoraConfig:
        return super()._config(model, use_rslora=True, **variant)
