"""Prefix tuning: learned keys and values before every sample, in every layer. https://arxiv.org/abs/2101.00190"""

from typing import ClassVar

import torch
from peft import PrefixTuningConfig
from transformers import PreTrainedModel

from etude.adaptation.virtual_tokens import VirtualAdaptation, VirtualAttached, attach_virtual, read_ahead


class Prefix(VirtualAdaptation):
    """Each layer attends to a few learned places. They begin as what the model makes of random tokens."""

    kind: ClassVar[str] = "prefix"
    peft_type: ClassVar[str] = "PREFIX_TUNING"

    @property
    def default_learning_rate(self) -> float:
        return 5e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> VirtualAttached:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            born = read_ahead(model, self.tokens)
            attached = attach_virtual(model, PrefixTuningConfig(num_virtual_tokens=self.tokens, task_type="CAUSAL_LM"))
        (parameter,) = attached.trainable.values()
        with torch.no_grad():
            parameter.copy_(born)
        return attached
