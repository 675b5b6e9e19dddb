"""PiSSA: a LoRA that begins as the base's principal directions. https://arxiv.org/abs/2404.02948

The paper moves these directions out of the base, W = (W - s B₀A₀) + s B A, so that without its adapter the base is not itself any more.
The same sum is written here without touching W: s B A - s B₀A₀ = s (B - B₀) A + s B₀ (A - A₀), a LoRA of twice the rank, exactly
zero at birth, which is also how it is saved: a plain LoRA on the untouched base, for any engine.
"""

from pathlib import Path
from typing import ClassVar

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from pydantic import PositiveInt
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear, PlainLinear
from etude.adaptation.peft_adapter import PeftAttached, attach_config
from etude.errors import ModelError


class PissaLinear(LoraLinear):
    """A LoRA layer that remembers where it began."""

    first_a: Tensor
    """[rank, in] A₀"""
    first_b: Tensor
    """[out, rank] B₀"""

    def begin(self, iterations: int) -> None:
        """A and B from the largest singular values of the weight, by a randomised decomposition (https://arxiv.org/abs/0909.4061)."""
        (name,) = self.active_adapters
        weight, scale = self.get_base_layer().weight.detach().float(), self.scaling[name]  # type: ignore[not-callable]
        rank = self.r[name]
        # More directions than are kept: the last of those that are sought is found the worst.
        u, s, v = (x[..., :rank] for x in torch.svd_lowrank(weight, q=min(4 * rank + 16, *weight.shape), niter=iterations))
        root = (s / scale).sqrt()
        a, b = (factor.detach() for factor in super().factors(name))
        for factor, half in ((a, (v * root).T), (b, u * root)):
            factor.zero_()[tuple(slice(size) for size in half.shape)] = half
        self.register_buffer("first_a", a.clone(), persistent=False)
        self.register_buffer("first_b", b.clone(), persistent=False)

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        a, b = super().factors(name)
        return torch.cat((a, a - self.first_a)), torch.cat((b - self.first_b, self.first_b), 1)

    def get_delta_weight(self, adapter: str) -> Tensor:
        a, b = self.factors(adapter)
        return (b @ a) * self.scaling[adapter]


class PissaAttached(PeftAttached):
    """Saved as the plain LoRA that it is."""

    def decays(self, name: str) -> bool:
        return False  # not zero is neutral, but where A and B began

    def origin(self, name: str) -> Tensor | None:
        """The layer's own memory of it, not a copy: a run that goes on elsewhere is given back what was computed where it began."""
        layer, factor = name.rsplit(".lora_", 1)
        return self.origins[f"{layer}.first_{factor[0].lower()}"]

    def save(self, folder: Path) -> None:
        (name,) = self.wrapper.active_adapters
        tensors = get_peft_model_state_dict(self.wrapper)
        for path, module in self.wrapper.named_modules():
            if isinstance(module, PissaLinear):
                with torch.no_grad():
                    tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = module.factors(name)
        config = self.wrapper.peft_config[name]
        assert isinstance(config, LoraConfig)
        plain = config.to_dict() | {"r": 2 * config.r, "lora_alpha": 2 * config.lora_alpha, "inference_mode": True}
        LoraConfig(**plain).save_pretrained(str(folder))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


class Pissa(Lora):
    """Learns where the base is strong from the first step on: faster than a LoRA from zero, at twice its size when saved."""

    kind: ClassVar[str] = "pissa"
    iterations: PositiveInt = 16
    """Of the randomised decomposition: the more, the closer to the true principal directions."""

    @property
    def born_of_weights(self) -> bool:
        return True

    def _on(self, model: PreTrainedModel, config: LoraConfig) -> PissaAttached:
        plain = attach_config(model, config, {PlainLinear: PissaLinear})
        for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
            if not isinstance(layer, PissaLinear):
                what = type(layer.get_base_layer()).__name__
                raise ModelError(f"pissa decomposes plain linear layers, and this model has {what}", "take `lora`")
            layer.begin(self.iterations)
        attached = PissaAttached(plain.model, plain.trainable, plain.notes)
        attached.wrapper = plain.wrapper
        for name, module in model.named_modules():
            if isinstance(module, PissaLinear):
                attached.origins |= {f"{name}.first_a": module.first_a, f"{name}.first_b": module.first_b}
        return attached
