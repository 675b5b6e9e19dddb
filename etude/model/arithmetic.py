"""How much arithmetic does a step ask for, and how much can this device do? A multiplication and an addition are two operations.

Counted is what the model needs: matrix products and attention over visible keys, forward, and backward as far as something is learnt there.
What is computed again to save memory is not counted, so it lowers the share of the peak, as it should (Chowdhery et al. 2022, appendix B).
"""

import time
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Of one model as it is trained: forward and backward together."""

    token: float
    """For each token that goes through the blocks, attention apart."""
    prediction: float
    """For each distinct prediction, in the head."""
    pair: float
    """For each key that a query sees."""

    def of(self, tokens: int, predictions: int, pairs: int) -> float:
        """Operations of so much."""
        return self.token * tokens + self.prediction * predictions + self.pair * pairs


def arithmetic(model: PreTrainedModel) -> Arithmetic:
    """Count a model whose parameters ask for gradients as they will be trained."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    token = prediction = 0.0
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            size = _products(module, parameter, config)
            if module is head:
                prediction += size * _passes(parameter)
            else:
                token += size * _passes(parameter)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Arithmetic(token, prediction, 3 * 2 * 2 * layers * heads * width)


def peak(model: PreTrainedModel, tokens: int, dtype: torch.dtype) -> float:
    """Operations a second that plain matrix products of the model's own shapes reach here, each as often as it occurs; takes seconds."""
    found = (getattr(m, "weight", None) for m in model.modules() if not isinstance(m, nn.Embedding))
    weights = [weight for weight in found if isinstance(weight, torch.Tensor)]
    shapes = Counter(tuple(weight.shape) for weight in weights if weight.dim() == 2)
    work = spent = 0.0
    for (out, into), count in shapes.items():
        x, weight = (torch.randn(n, into, device=model.device).to(dtype) for n in (tokens, out))
        seconds = min(_timed(x, weight) for _ in range(4))
        work += 2.0 * tokens * out * into * count
        spent += seconds * count
    return work / spent


def _products(module: nn.Module, parameter: nn.Parameter, config: object) -> float:
    """Multiplications and additions of one token with a parameter."""
    if isinstance(module, nn.Linear):  # of one in four bits the parameter has fewer entries
        return 2.0 * module.in_features * module.out_features if parameter is module.weight else 0.0
    if parameter.dim() == 2:
        return 2.0 * parameter.numel()
    if parameter.dim() == 3:  # a stack of experts, of which a token meets a few
        used = getattr(config, "num_experts_per_tok", None) or parameter.shape[0]
        return 2.0 * parameter.numel() * used / parameter.shape[0]
    return 0.0


def _passes(parameter: nn.Parameter) -> int:
    """The product itself, the gradient of what goes in, and that of the weight where it learns."""
    return 3 if parameter.requires_grad else 2


def _timed(x: torch.Tensor, weight: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    F.linear(x, weight)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began
