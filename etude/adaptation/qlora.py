"""QLoRA: a LoRA on a base held in four bits. https://arxiv.org/abs/2305.14314"""

import json
from pathlib import Path
from typing import ClassVar

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.peft_adapter import PeftAttached, attach_config
from etude.model.quantised import Quantised, dense, dequantise, library, plain, quantise

MARK = "quantisation.json"
"""Beside an adapter that was trained on a base in four bits; whoever puts it back quantises the base first."""


class QLora(Lora):
    """The base takes a quarter of bfloat16's memory; what rounding it costs is learnt over by the LoRA, and is shown."""

    kind: ClassVar[str] = "qlora"

    @property
    def keeps_parent(self) -> bool:
        return False

    def _on(self, model: PreTrainedModel, config: LoraConfig) -> "QLoraAttached":
        return attach_quantised(model, config)


class QLoraAttached(PeftAttached):
    """Without its adapters this is the rounded base, not the parent."""

    quantised: Quantised

    @property
    def can_switch_off(self) -> bool:
        return False

    def merged(self) -> PreTrainedModel:
        """Melted into the four bits' values, as it was trained; into the original weights it would be another model."""
        with torch.no_grad():
            for name, layer in [(n, m) for n, m in self.model.named_modules() if isinstance(m, LoraLayer)]:
                assert isinstance(layer, QuantisedLoraLinear), "every adapted layer is in four bits"
                (active,) = layer.active_adapters
                base = layer.get_base_layer()
                weight = dense(base.weight)
                above, _, last = name.rpartition(".")
                melted = (weight.float() + layer.get_delta_weight(active).float()).to(weight.dtype)
                setattr(self.model.get_submodule(above), last, plain(base, melted))
        dequantise(self.model)
        return self.model

    def save(self, folder: Path) -> None:
        super().save(folder)
        found = self.quantised
        mark = {"kind": "nf4", "double_quantisation": True, "layers": found.layers, "parameters": found.parameters, "error": found.error}
        (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n")


class QuantisedLoraLinear(LoraLinear):
    """The same product, with the weight unpacked for each use."""


def attach_quantised(model: PreTrainedModel, config: LoraConfig) -> QLoraAttached:
    """Quantise the model, in place, and put LoRA layers on it.

    Raises:
        ModelError: bitsandbytes is missing, or there is nothing to quantise.
    """
    found = quantise(model)
    made = attach_config(model, config, {library().nn.Linear4bit: QuantisedLoraLinear})
    attached = QLoraAttached(made.model, made.trainable, made.notes)
    attached.wrapper, attached.quantised = made.wrapper, found
    megabytes, each = found.bytes / 2**20, found.bytes / found.parameters
    attached.notes.append(
        f"{found.layers} layers are held in NF4: {found.parameters:,} parameters in {megabytes:,.1f} MiB, {each:.3f} bytes each; "
        f"rounding moved them by {found.error:.1%} of their norm"
    )
    return attached
