"""A trained artefact back on its base, by the same `attach` that trained it, so that the arithmetic is the same."""

import json
from pathlib import Path

from peft import LoraConfig, PeftConfig, set_peft_model_state_dict
from peft.config import PromptLearningConfig
from safetensors.torch import load_file
from transformers import PreTrainedModel

from etude.adaptation import own_format
from etude.adaptation.contract import Attached
from etude.adaptation.peft_adapter import attach_config
from etude.adaptation.qlora import MARK, attach_quantised
from etude.adaptation.virtual_tokens import attach_virtual
from etude.errors import ModelError

LAYERS = ("LORA", "IA3", "VERA", "TRAINABLE_TOKENS")
VIRTUAL = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
"""The types of peft's that can be put back: layers of the model, and tokens before everything that it reads."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / "adapter_config.json").is_file() or own_format.is_ours(folder)


def reattach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put the adapter saved in `folder` on its base model.

    Raises:
        ModelError: another kind of adapter, or one for another model.
    """
    if own_format.is_ours(folder):
        return own_format.reattach(model, folder)
    kind = json.loads((folder / "adapter_config.json").read_text()).get("peft_type")
    if kind not in LAYERS + VIRTUAL:
        raise ModelError(f"{folder}: adapters of type {kind} cannot be loaded", f"these can: {', '.join(LAYERS + VIRTUAL)}")
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = kind in VIRTUAL  # what is saved of these is what their encoder gave, without the encoder
    if isinstance(config, PromptLearningConfig):
        attached = attach_virtual(model, config)
        attached.notes.clear()
    elif (folder / MARK).is_file():
        assert isinstance(config, LoraConfig), "only a LoRA is trained on a base in four bits"
        attached = attach_quantised(model, config)
        attached.notes.clear()
    else:
        attached = attach_config(model, config)
    outcome = set_peft_model_state_dict(attached.wrapper, load_file(folder / "adapter_model.safetensors"))
    missing = [key for key in outcome.missing_keys if any(part in key for part in _PARTS)]
    if missing or outcome.unexpected_keys:
        odd = (missing + list(outcome.unexpected_keys))[0]
        raise ModelError(f"{folder}: the adapter does not fit this model ({odd} among others)", "load it on the base it was trained on")
    return attached


_PARTS = (".lora_", ".ia3_", ".vera_lambda_", ".trainable_tokens_delta")
"""What an adapter's own tensors are called; the base's are missing from its file, and should be."""
