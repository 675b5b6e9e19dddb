"""P-tuning: learned embeddings that a small network makes. https://arxiv.org/abs/2103.10385"""

from typing import ClassVar

import torch
from peft import PromptEncoderConfig
from pydantic import PositiveInt
from transformers import PreTrainedModel

from etude.adaptation.virtual_tokens import VirtualAdaptation, VirtualAttached, attach_virtual


class PTuning(VirtualAdaptation):
    """The network makes the virtual tokens learn together; what is saved is what it gives, without it."""

    kind: ClassVar[str] = "p-tuning"
    peft_type: ClassVar[str] = "P_TUNING"
    hidden: PositiveInt = 256
    """Width of the network."""

    @property
    def default_learning_rate(self) -> float:
        return 1e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> VirtualAttached:
        config = PromptEncoderConfig(num_virtual_tokens=self.tokens, encoder_hidden_size=self.hidden, task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return attach_virtual(model, config)
