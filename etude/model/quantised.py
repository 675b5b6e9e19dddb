"""A frozen base in four bits: NF4 in blocks of 64 with quantised scales, by bitsandbytes. https://arxiv.org/abs/2305.14314

About 0.52 bytes a parameter. The head, the embedding and the norms stay whole.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.errors import ModelError


@dataclass(frozen=True, slots=True)
class Quantised:
    """What was quantised."""

    layers: int
    parameters: int
    """Numbers that are held in four bits."""
    bytes: int
    """Of memory that they take, scales counted."""
    error: float
    """Norm of what was lost over the norm of what there was."""


def library() -> Any:
    """bitsandbytes, or an error that says how to get it."""
    try:
        import bitsandbytes  # noqa: PLC0415 (a heavy extra)
    except ImportError as missing:
        raise ModelError("a base in four bits needs bitsandbytes, which is not installed", "run: pip install 'etude[qlora]'") from missing
    return bitsandbytes


def quantise(model: PreTrainedModel) -> Quantised:
    """Hold every plain linear layer but the head in NF4, in place.

    What is quantised are the weights rounded to bfloat16, so that the result is the same in whatever type the base was read.

    Raises:
        ModelError: bitsandbytes is missing, or there is nothing to quantise.
    """
    bnb, head = library(), model.get_output_embeddings()
    layers = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear and module is not head]
    if not layers:
        raise ModelError(f"{type(model).__name__} has no plain linear layers to hold in four bits", "take `lora`")
    parameters, size, lost, whole = 0, 0, 0.0, 0.0
    for name, layer in layers:
        before, dtype = layer.weight.detach(), layer.weight.dtype
        packed = bnb.nn.Params4bit(before.bfloat16().float(), requires_grad=False, quant_type="nf4", compress_statistics=True)
        small = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        small.weight = packed.to(before.device)
        small.weight.quant_state.dtype = dtype
        small.bias, small.training = layer.bias, layer.training
        # Its own inference on such processors packs the bits anew, in place, and computes in bfloat16 whatever was asked for.
        small.support_avx512bf16_for_cpu = False
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, small)
        lost += float((dense(small.weight).float() - before.float()).square().sum())
        whole += float(before.float().square().sum())
        parameters += before.numel()
        size += _bytes(small.weight)
    return Quantised(len(layers), parameters, size, (lost / whole) ** 0.5)


def dense(weight: Tensor) -> Tensor:
    """A weight as it is multiplied with: itself, or what its four bits stand for."""
    state = getattr(weight, "quant_state", None)
    return weight if state is None else library().functional.dequantize_4bit(weight.data, state)


def dequantise(model: PreTrainedModel) -> None:
    """Plain linear layers again, of the values that were computed with; in place."""
    linear4bit = library().nn.Linear4bit
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, linear4bit)]:
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, plain(layer, dense(layer.weight)))


def plain(layer: nn.Linear, weight: Tensor) -> nn.Linear:
    """torch's own layer of that weight, with the bias of `layer`."""
    made = nn.Linear(layer.in_features, layer.out_features, device="meta")
    made.weight, made.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return made.train(layer.training)


def _bytes(weight: Any) -> int:
    """Of a packed weight and its scales."""
    state = weight.quant_state
    parts = [weight, state.absmax, *((state.state2.absmax,) if state.nested else ())]
    return sum(part.numel() * part.element_size() for part in parts)
