"""The LoRA layer: base and delta meet before the one rounding.

In bfloat16 a small delta that is added after the base's product was rounded is mostly lost: half an ulp of the sum is larger
than it. Here both come out of one matrix product, `[x, x Aᵀ] · [W, s B]ᵀ`, whose accumulator is float32. In float32 the
delta is added to the product in place. Either way only `x` and `x Aᵀ` are kept for the backward pass.
"""

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from etude.model.quantised import dense


class _OneProduct(torch.autograd.Function):
    """y = x Wᵀ + s · drop(x) Aᵀ Bᵀ + bias, with frozen W and bias; `dropped` is None where nothing is dropped."""

    @staticmethod
    def forward(ctx, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        inner = F.linear(x if dropped is None else dropped, low_a)  # [..., rank]
        if x.dtype == torch.float32:
            y = F.linear(x, dense(weight), bias)
            y.view(-1, y.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), low_b.T, alpha=scale)
        else:
            y = F.linear(torch.cat((x, inner), -1), torch.cat((dense(weight), low_b * scale), 1), bias)
        ctx.save_for_backward(x, dropped, a, b, inner)
        ctx.weight, ctx.scale = weight, scale  # a frozen parameter, which in four bits knows its scales: no tensor to be saved
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        x, dropped, a, b, inner = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        through = (flat @ b.to(flat.dtype)).mul_(ctx.scale)  # [tokens, rank]
        seen = (x if dropped is None else dropped).reshape(-1, x.shape[-1])
        d_a = (through.T @ seen).to(a.dtype)
        d_b = (flat.T @ inner.reshape(-1, inner.shape[-1])).to(b.dtype).mul_(ctx.scale)
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            d_x = flat @ dense(ctx.weight)
            if dropped is None:
                d_x.addmm_(through, a.to(flat.dtype))
            d_x = d_x.view_as(x)
        if dropped is not None and ctx.needs_input_grad[1]:
            d_dropped = (through @ a.to(flat.dtype)).view_as(x)
        return d_x, d_dropped, None, None, d_a, d_b, None


class ExactLinear(type):
    """A stand-in type of which only plain `nn.Linear` is an instance: quantised layers derive from it and must not match."""

    def __instancecheck__(cls, instance: object) -> bool:
        return type(instance) is nn.Linear


class PlainLinear(metaclass=ExactLinear):
    """See ExactLinear."""


class LoraLinear(Linear):
    """peft's LoRA layer with the product above; merging, saving and switching off are peft's."""

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or args or kwargs or len(active) != 1 or active[0] in self.lora_variant:
            return super().forward(x, *args, **kwargs)
        (name,) = active
        dropout = self.lora_dropout[name]
        dropped = dropout(x) if isinstance(dropout, nn.Dropout) and self.training else None
        base = self.base_layer
        return _OneProduct.apply(x, dropped, base.weight, base.bias, *self.factors(name), self.scaling[name])

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """A [rank, in] and B [out, rank]: the delta is `scaling · B A`."""
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        assert isinstance(a, Tensor) and isinstance(b, Tensor), "peft keeps each factor in a linear layer"
        return a, b
