"""QLoRA: a LoRA on a base held in four bits. https://arxiv.org/abs/2305.14314"""

import json
from pathlib import Path
from typing import ClassVar

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from etude.adaptation.lora import QUANTISED, Lora
from etude.adaptation.lora_layer import LoraLinear
from etude.adaptation.peft_adapter import LAYERS, PeftAttached, attach_config, put_back, saved_config
from etude.model.quantised import Quantised, dense, dequantise, library, plain, quantise


class QLora(Lora):
    """The base takes a quarter of bfloat16's memory; what rounding it costs is learnt over by the LoRA, and is shown."""

    kind: ClassVar[str] = "qlora"

    @property
    def keeps_parent(self) -> bool:
        return False

    @classmethod
    def reads(cls, folder: Path, peft_type: str | None) -> bool:
        return (folder / QUANTISED).is_file()

    @classmethod
    def reload(cls, model: PreTrainedModel, folder: Path) -> "QLoraAttached":
        config = saved_config(folder)
        assert isinstance(config, LoraConfig), "only a LoRA is trained on a base in four bits"
        config.inference_mode = False
        attached = attach_quantised(model, config)
        put_back(attached, folder)
        attached.notes.clear()  # they were said when it was trained
        return attached

    def _on(self, model: PreTrainedModel, config: LoraConfig) -> "QLoraAttached":
        return attach_quantised(model, config)


class QLoraAttached(PeftAttached):
    """Without its adapters this is the rounded base, not the parent."""

    quantised: Quantised

    @property
    def can_switch_off(self) -> bool:
        return False

    @property
    def melts_into(self) -> str:
        return "its parent's weights as their four bits hold them (into the unrounded ones it would be another model)"

    def merged(self) -> PreTrainedModel:
        """Melted into the four bits' values, as it was trained; into the original weights it would be another model."""
        with torch.no_grad():
            for name, layer in [(n, m) for n, m in self.model.named_modules() if isinstance(m, LoraLinear)]:
                (active,) = layer.active_adapters
                base, (above, _, last) = layer.get_base_layer(), name.rpartition(".")
                assert isinstance(base, nn.Linear), "ours stand on linear layers alone"
                weight = dense(base.weight)
                melted = (weight.float() + layer.get_delta_weight(active).float()).to(weight.dtype)
                setattr(self.model.get_submodule(above), last, plain(base, melted))
        dequantise(self.model)
        return self.model

    def save(self, folder: Path) -> None:
        super().save(folder)
        found = self.quantised
        mark = {"kind": "nf4", "double_quantisation": True, "layers": found.layers, "parameters": found.parameters, "error": found.error}
        (folder / QUANTISED).write_text(json.dumps(mark, indent=1) + "\n")


class QuantisedLoraLinear(LoraLinear):
    """The same product, with the weight unpacked for each use."""


def attach_quantised(model: PreTrainedModel, config: LoraConfig) -> QLoraAttached:
    """Quantise the model, in place, and put LoRA layers on it.

    Raises:
        ModelError: bitsandbytes is missing, or there is nothing to quantise.
    """
    found = quantise(model)
    made = attach_config(model, config, {library().nn.Linear4bit: QuantisedLoraLinear} | dict(LAYERS))
    attached = QLoraAttached(made.model, made.trainable, made.notes)
    attached.wrapper, attached.quantised = made.wrapper, found
    megabytes, each = found.bytes / 2**20, found.bytes / found.parameters
    attached.notes.append(
        f"{found.layers} layers are held in NF4: {found.parameters:,} parameters in {megabytes:,.1f} MiB, {each:.3f} bytes each; "
        f"rounding moved them by {found.error:.1%} of their norm"
    )
    return attached
