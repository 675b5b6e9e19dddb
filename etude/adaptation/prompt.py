"""Prompt tuning: learned embeddings before every sample. https://arxiv.org/abs/2104.08691"""

from typing import ClassVar

import torch
from peft import PromptTuningConfig, PromptTuningInit
from transformers import PreTrainedModel

from etude.adaptation.virtual_tokens import VirtualAdaptation, VirtualAttached, attach_virtual


class Prompt(VirtualAdaptation):
    """A soft prompt: the smallest adapter there is. It begins as random words of the vocabulary."""

    kind: ClassVar[str] = "prompt"
    peft_type: ClassVar[str] = "PROMPT_TUNING"

    @property
    def default_learning_rate(self) -> float:
        return 1e-2

    def attach(self, model: PreTrainedModel, *, seed: int) -> VirtualAttached:
        config = PromptTuningConfig(num_virtual_tokens=self.tokens, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return attach_virtual(model, config)
