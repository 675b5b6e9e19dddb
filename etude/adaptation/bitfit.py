"""BitFit: biases alone. https://arxiv.org/abs/2106.10199"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from etude.adaptation import own_format
from etude.adaptation.contract import Attached
from etude.errors import ModelError


class BitFit(own_format.OwnAdaptation):
    """Every bias of linear layers and norms changes; a model without any is given biases of zero, which is said."""

    kind: ClassVar[str] = "bitfit"

    @property
    def default_learning_rate(self) -> float:
        return 1e-3

    @property
    def born_of_weights(self) -> bool:
        return True  # the biases are copied, to be learnt and to go back to

    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        head = model.get_output_embeddings()
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.LayerNorm)) and m is not head}
        biased = {name: layer for name, layer in layers.items() if layer.bias is not None}
        chosen = biased or {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
        for name, layer in chosen.items():
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, BiasedLinear.of(layer) if isinstance(layer, nn.Linear) else BiasedNorm.of(layer))
        attached = BitFitAttached(model, {f"{name}.bias": model.get_parameter(f"{name}.bias") for name in chosen})
        attached.options = self
        if not biased:
            attached.notes.append(f"this model has no biases: {len(chosen)} linear layers were given one of zero each")
        elif others := sorted({n for n, _ in model.named_parameters() if n.endswith(".bias")} - attached.trainable.keys()):
            attached.notes.append(f"{len(others)} biases of other kinds of layers stay as they are: {', '.join(others[:3])}")
        return attached


class BitFitAttached(Attached):
    """Layers know the bias they were born with."""

    options: BitFit

    @property
    def can_switch_off(self) -> bool:
        return True

    @contextmanager
    def off(self) -> Iterator[None]:
        layers = _layers(self.model)
        for layer in layers:
            layer.off = True
        try:
            yield
        finally:
            for layer in layers:
                layer.off = False

    def merged(self) -> PreTrainedModel:
        """Plain layers with plain biases, and a configuration that says so.

        Raises:
            ModelError: this architecture's code has no place for them.
        """
        config = _with_places(self.model, set(self.trainable))
        if config is None:
            where = f"the code of {type(self.model).__name__} has no place for just these {len(self.trainable)} biases"
            raise ModelError(f"{where}, so that they cannot be melted into it", "keep the adapter apart, or take `lora`")
        self.model.config = config
        for name, layer in [(n, m) for n, m in self.model.named_modules() if isinstance(m, (BiasedLinear, BiasedNorm))]:
            above, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(above), last, layer.plain())
        return self.model

    def save(self, folder: Path) -> None:
        own_format.save(folder, self.options, self)


def _with_places(model: PreTrainedModel, learnt: set[str]) -> PreTrainedConfig | None:
    """A configuration under which the model's own code has the biases that it has now, and no others; None where there is none."""
    wanted = {name for name, _ in model.named_parameters() if name.endswith(".bias")} | learnt
    for chosen in ((), ("attention_bias",), ("mlp_bias",), ("attention_bias", "mlp_bias")):
        config = copy.deepcopy(model.config)
        for name in chosen:
            if not hasattr(config, name):
                break
            setattr(config, name, True)
        with torch.device("meta"):
            known = {name for name, _ in AutoModelForCausalLM.from_config(config).named_parameters() if name.endswith(".bias")}
        if known == wanted:
            return config
    return None


def _layers(model: nn.Module) -> list["BiasedLinear | BiasedNorm"]:
    return [module for module in model.modules() if isinstance(module, (BiasedLinear, BiasedNorm))]


class _Biased(torch.autograd.Function):
    """[x, 1] · [W, b]ᵀ: in a narrow type the bias enters before the one rounding, as it would not if it were added afterwards."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        if x.dtype == torch.float32:
            return F.linear(x, weight, bias)
        one = x.new_ones(*x.shape[:-1], 1)
        return F.linear(torch.cat((x, one), -1), torch.cat((weight, bias.to(x.dtype)[:, None]), 1))

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        d_x = gradient @ weight if ctx.needs_input_grad[0] else None
        return d_x, None, gradient.reshape(-1, gradient.shape[-1]).sum(0, dtype=torch.float32)


class BiasedLinear(nn.Module):
    """A frozen linear layer with a float32 bias that learns."""

    def __init__(self, weight: nn.Parameter, born: Tensor | None):
        super().__init__()
        self.weight, self.off = weight, False
        self.bias = nn.Parameter(torch.zeros(weight.shape[0], device=weight.device) if born is None else born.detach().float().clone())
        self.register_buffer("born", born, persistent=False)
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]

    @classmethod
    def of(cls, layer: nn.Linear) -> "BiasedLinear":
        assert isinstance(layer.weight, nn.Parameter), "a linear layer holds its weight"
        return cls(layer.weight, None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.born) if self.off else _Biased.apply(x, self.weight, self.bias)

    def plain(self) -> nn.Linear:
        """The same as torch's own layer."""
        layer = nn.Linear(self.in_features, self.out_features, device="meta")
        layer.weight, layer.bias = self.weight, nn.Parameter(self.bias.detach().to(self.weight.dtype), requires_grad=False)
        return layer


class BiasedNorm(nn.Module):
    """A frozen norm with a float32 bias that learns; computed in float32."""

    def __init__(self, layer: nn.LayerNorm):
        super().__init__()
        assert layer.bias is not None, "only norms that have one are chosen"
        self.weight, self.eps, self.normalized_shape, self.off = layer.weight, layer.eps, layer.normalized_shape, False
        self.bias = nn.Parameter(layer.bias.detach().float().clone())
        self.register_buffer("born", layer.bias.detach(), persistent=False)

    @classmethod
    def of(cls, layer: nn.LayerNorm) -> "BiasedNorm":
        return cls(layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.off:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.born, self.eps)
        weight = None if self.weight is None else self.weight.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, self.bias, self.eps).to(x.dtype)

    def plain(self) -> nn.LayerNorm:
        """The same as torch's own layer."""
        layer = nn.LayerNorm(list(self.normalized_shape), self.eps, elementwise_affine=self.weight is not None, device="meta")
        layer.weight, layer.bias = self.weight, nn.Parameter(self.bias.detach().to(self.born.dtype), requires_grad=False)
        return layer
