"""A frozen base in four bits: NF4 in blocks of 64 with quantised scales, by bitsandbytes. https://arxiv.org/abs/2305.14314

About 0.52 bytes a parameter. The head, the embedding and the norms stay whole.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.errors import ModelError
from etude.model.shards import Put, fill
from etude.model.shelving import group
from etude.model.streamed import Slot, Stream, stream_of


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
    """Hold every plain linear layer but the head in NF4, in place; of a streamed model block by block, kept where its blocks are kept.

    What is quantised are the weights rounded to bfloat16, so that the result is the same in whatever type the base was read.

    Raises:
        ModelError: bitsandbytes is missing, or there is nothing to quantise.
    """
    stream, tally = stream_of(model), Tally()
    layers = dict(linear_layers(model, model))
    if not layers:
        raise ModelError(f"{type(model).__name__} has no plain linear layers to hold in four bits", "take `lora`")
    if stream is not None:
        inside = {id(module) for block in stream.blocks for module in block.modules()}
        layers = {name: layer for name, layer in layers.items() if id(layer) not in inside}
        tally.add(quantise_stream(model, stream))
    for name, layer in layers.items():
        put_in(model, name, four_bit(layer, packed(layer, tally)))
    return tally.found()


@dataclass(slots=True)
class Tally:
    """Sums over layers that are being quantised."""

    layers: int = 0
    parameters: int = 0
    bytes: int = 0
    lost: float = 0.0
    whole: float = 0.0

    def add(self, other: "Tally") -> None:
        """Those of other layers."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def found(self) -> Quantised:
        """What they come to."""
        return Quantised(self.layers, self.parameters, self.bytes, (self.lost / self.whole) ** 0.5)


def linear_layers(module: nn.Module, model: PreTrainedModel) -> list[tuple[str, nn.Linear]]:
    """The plain linear layers of a module, but for the model's head, by their names in the module."""
    head = model.get_output_embeddings()
    return [(name, layer) for name, layer in module.named_modules() if type(layer) is nn.Linear and layer is not head]


def packed(layer: nn.Linear, tally: Tally) -> Any:
    """The layer's weight in four bits, with its scales as `quant_state`; counted."""
    before = layer.weight.detach()
    small = library().nn.Params4bit(before.bfloat16().float(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    small = small.to(before.device)
    small.quant_state.dtype = layer.weight.dtype
    tally.layers += 1
    tally.parameters += before.numel()
    tally.bytes += _bytes(small)
    tally.lost += float((dense(small).float() - before.float()).square().sum())
    tally.whole += float(before.float().square().sum())
    return small


def four_bit(layer: nn.Linear, weight: Any) -> nn.Linear:
    """bitsandbytes' layer of a packed weight, in the place of `layer`."""
    small = library().nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=layer.weight.dtype, quant_type="nf4", device="meta"
    )
    small.weight, small.bias, small.training = weight, layer.bias, layer.training
    # Its own inference on such processors packs the bits anew, in place, and computes in bfloat16 whatever was asked for.
    small.support_avx512bf16_for_cpu = False
    return small


def put_in(model: nn.Module, name: str, layer: nn.Module) -> None:
    """`layer` where the module of that name was."""
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, layer)


def quantise_stream(model: PreTrainedModel, stream: Stream) -> Tally:
    """The linear layers of every block, one block at a time; from then on the blocks come and go in four bits."""

    def write(put: Put) -> dict[str, Any]:
        tally = Tally()
        stream.towards = 1
        for index, block in enumerate(stream.blocks):
            stream.enter(index)
            small = {f"{name}.weight": packed(layer, tally) for name, layer in linear_layers(block, model)}
            put(group(index), as_tensors({name: small.get(name, p.data) for name, p in block.named_parameters()}))
        return asdict(tally)

    layers = [layer for block in stream.blocks for _, layer in linear_layers(block, model)]
    saved = sum(layer.weight.nbytes - layer.weight.numel() * 17 // 32 for layer in layers)
    shelf = stream.shelves(f"nf4-{str(model.dtype).removeprefix('torch.')}", stream.pass_bytes - saved)
    note = fill(shelf, write)
    stream.replace([put_four_bit(block, model, shelf.get(group(index)), stream.device) for index, block in enumerate(stream.blocks)])
    return Tally(**{name: note[name] for name in asdict(Tally())})


def as_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a block for a file, scales beside them, named as transformers' own files of such models have them."""
    tensors = dict[str, Tensor]()
    for name, weight in weights.items():
        tensors[name] = weight.data
        if (state := getattr(weight, "quant_state", None)) is not None:
            tensors |= {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    return tensors


def put_four_bit(block: nn.Module, model: PreTrainedModel, tensors: dict[str, Tensor], device: torch.device) -> list[Slot]:
    """Layers of these packed weights in the place of a block's linear layers, and the places into which all its weights come."""
    slots = []
    for name, layer in linear_layers(block, model):
        beside = f"{name}.weight."
        scales = {part.removeprefix(beside): tensor for part, tensor in tensors.items() if part.startswith(beside)}
        weight = library().nn.Params4bit.from_prequantized(tensors[f"{name}.weight"], scales, device="cpu")
        state = weight.quant_state
        state.dtype = layer.weight.dtype
        slots += [Slot(state, "absmax", state.absmax), Slot(state.state2, "absmax", state.state2.absmax)]
        state.code, state.state2.code, state.offset = (t.to(device) for t in (state.code, state.state2.code, state.offset))
        small = four_bit(layer, weight)
        small.forward = partial(_product, small)  # type: ignore[method-assign]
        put_in(block, name, small)
    return slots + [Slot(p, "data", tensors[name]) for name, p in block.named_parameters()]


def _product(layer: Any, x: Tensor) -> Tensor:
    return _Product.apply(x.to(layer.compute_dtype), layer).to(x.dtype)  # type: ignore[union-attr]


class _Product(torch.autograd.Function):
    """bitsandbytes' own, which keeps the weight for the backward pass; this one asks its layer for it again."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return library().matmul_4bit(x, layer.weight, bias=bias, quant_state=layer.weight.quant_state)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        return gradient @ dense(ctx.layer.weight).to(gradient.dtype), None


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
