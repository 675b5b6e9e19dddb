"""Bottleneck adapters: small layers behind the sublayers of each block. https://arxiv.org/abs/1902.00751 (Houlsby),
https://arxiv.org/abs/2005.00247 (Pfeiffer)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.adaptation import own_format
from etude.adaptation.contract import Attached
from etude.errors import ModelError


class Bottleneck(own_format.OwnAdaptation):
    """Each chosen sublayer's output goes down to a few dimensions and up again, and is added to itself; zero at birth."""

    kind: ClassVar[str] = "bottleneck"
    size: PositiveInt = 64
    """Dimensions in the middle."""
    style: Literal["houlsby", "pfeiffer"] = "houlsby"
    """Behind attention and feed-forward of every block, or behind the feed-forward alone."""

    @property
    def default_learning_rate(self) -> float:
        return 5e-4

    @property
    def can_be_parent(self) -> bool:
        return False

    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        hidden, places = model.config.get_text_config().hidden_size, _places(model, self.style)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for name in places:
                sublayer = model.get_submodule(name)
                sublayer.bottleneck = Adapter(hidden, self.size, next(sublayer.parameters()).device)
                sublayer.register_forward_hook(_behind)
        trainable = {name: p for name, p in model.named_parameters() if ".bottleneck." in name}
        attached = BottleneckAttached(model, trainable)
        attached.options = self
        if model.dtype != torch.float32:
            attached.notes.append(f"what the adapters add is rounded to {model.dtype} after their sublayer was: small steps may be lost")
        return attached


class BottleneckAttached(Attached):
    """The adapters lie inside the sublayers that they stand behind."""

    options: Bottleneck

    @property
    def can_switch_off(self) -> bool:
        return True

    @contextmanager
    def off(self) -> Iterator[None]:
        adapters = [module for module in self.model.modules() if isinstance(module, Adapter)]
        for adapter in adapters:
            adapter.off = True
        try:
            yield
        finally:
            for adapter in adapters:
                adapter.off = False

    def merged(self) -> PreTrainedModel:
        raise ModelError(
            "bottleneck adapters are layers of their own and cannot be melted into their base, so nothing can stand on them",
            "train further stages on a `lora`, or on the base",
        )

    def save(self, folder: Path) -> None:
        own_format.save(folder, self.options, self)


class Adapter(nn.Module):
    """x → x + up(gelu(down(x))); float32 weights, computed in the type of x."""

    def __init__(self, hidden: int, size: int, device: torch.device):
        super().__init__()
        self.down, self.up, self.off = nn.Linear(hidden, size, device=device), nn.Linear(size, hidden, device=device), False
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.off:
            return x
        low = F.gelu(F.linear(x, self.down.weight.to(x.dtype), self.down.bias.to(x.dtype)))
        return x + F.linear(low, self.up.weight.to(x.dtype), self.up.bias.to(x.dtype))


def _behind(sublayer: nn.Module, _inputs: Any, output: Any) -> Any:
    """Attention gives a tuple, of which the first is what goes on."""
    adapter = sublayer.bottleneck
    assert isinstance(adapter, Adapter)
    return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)


def _places(model: PreTrainedModel, style: str) -> list[str]:
    """Names of the sublayers, block by block.

    Raises:
        ModelError: the blocks are not built of an attention and a feed-forward module.
    """
    blocks = set(model._no_split_modules or ())
    places = []
    for name, block in model.named_modules():
        if type(block).__name__ not in blocks:
            continue
        parts = {f"{name}.{child}": type(module).__name__.lower() for child, module in block.named_children()}
        attention = [part for part, kind in parts.items() if "attention" in kind or "attn" in kind]
        others = {part: kind for part, kind in parts.items() if part not in attention and "norm" not in kind}
        inner = [part for part, kind in others.items() if any(word in kind for word in ("mlp", "moe", "feedforward"))]
        if len(attention) != 1 or len(inner) != 1:
            what = f"{type(block).__name__} of {type(model).__name__}"
            raise ModelError(f"{what} is not built of one attention and one feed-forward module", "take `lora`")
        places += [*(attention if style == "houlsby" else ()), *inner]
    if not places:
        raise ModelError(f"{type(model).__name__} names no blocks to put adapters into", "take `lora`")
    return places
