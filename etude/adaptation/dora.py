"""DoRA: a weight's direction moves by a LoRA, its magnitude by a vector. https://arxiv.org/abs/2402.09353"""

from typing import Any, ClassVar

from peft import LoraConfig
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora


class DoRA(Lora):
    """Closer to full tuning at low ranks, and slower: each layer's column norms are computed in every forward."""

    kind: ClassVar[str] = "dora"

    def _config(self, model: PreTrainedModel, **variant: Any) -> LoraConfig:
        return super()._config(model, use_dora=True, **variant)
