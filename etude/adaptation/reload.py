"""A trained artefact back on its base, by the same `attach` that trained it, so that the arithmetic is the same."""

import json
from pathlib import Path

from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from etude.adaptation.contract import Attached
from etude.adaptation.lora import attach_config
from etude.errors import ModelError


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / "adapter_config.json").is_file()


def reattach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put the adapter saved in `folder` on its base model.

    Raises:
        ModelError: another kind of adapter, or one for another model.
    """
    kind = json.loads((folder / "adapter_config.json").read_text()).get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{folder}: adapters of type {kind} cannot be loaded", "LORA adapters can")
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig)
    config.inference_mode = False
    attached = attach_config(model, config)
    outcome = set_peft_model_state_dict(attached.wrapper, load_file(folder / "adapter_model.safetensors"))
    missing = [key for key in outcome.missing_keys if ".lora_" in key]
    if missing or outcome.unexpected_keys:
        odd = (missing + list(outcome.unexpected_keys))[0]
        raise ModelError(f"{folder}: the adapter does not fit this model ({odd} among others)", "load it on the base it was trained on")
    return attached
