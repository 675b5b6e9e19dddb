"""What peft keeps well: injecting, switching off, merging and the file format of its adapters. Which layer computes is ours."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation, Attached
from etude.adaptation.lora_layer import LoraLinear, PlainLinear
from etude.errors import ModelError
from etude.model.outputs import NAME


class PeftAttached(Attached):
    """Layers hold their base beside what is learnt; the wrapper is peft's, for its file format."""

    wrapper: PeftModel

    @property
    def can_switch_off(self) -> bool:
        return True

    @contextmanager
    def off(self) -> Iterator[None]:
        with self.wrapper.disable_adapter():
            yield

    def decays(self, name: str) -> bool:
        return ".lora_" in name and super().decays(name)  # a scale means nothing at 1, an embedding nowhere

    def merged(self) -> PreTrainedModel:
        refuse_tied(self.model)
        return self.wrapper.merge_and_unload()

    def save(self, folder: Path) -> None:
        self.wrapper.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # an empty form; the record beside the weights says what there is to say
        _in_order(folder / "adapter_config.json", self.wrapper.peft_config[self.wrapper.active_adapter])


def _in_order(file: Path, config: PeftConfig) -> None:
    """Sort what peft keeps as sets: their order is another in every process, and equal runs give equal files."""
    written = json.loads(file.read_text(encoding="utf-8"))
    ordered = {key: sorted(value) if isinstance(getattr(config, key, None), set) else value for key, value in written.items()}
    file.write_text(json.dumps(ordered, indent=2, sort_keys=True), encoding="utf-8")


class PeftAdaptation(Adaptation):
    """What peft saves and knows by its type."""

    peft_type: ClassVar[str]
    """As `adapter_config.json` has it."""

    @classmethod
    def reads(cls, folder: Path, peft_type: str | None) -> bool:
        return peft_type == cls.peft_type

    @classmethod
    def reload(cls, model: PreTrainedModel, folder: Path) -> Attached:
        config = saved_config(folder)
        config.inference_mode = False
        return put_back(attach_config(model, config), folder)


def saved_config(folder: Path) -> Any:
    """peft's options as saved, for the causal model that etude keeps every adapter on: a sequence classifier's head is put on apart."""
    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.task_type == "SEQ_CLS":
        config.task_type, config.modules_to_save = "CAUSAL_LM", None
    return config


def put_back(attached: PeftAttached, folder: Path) -> PeftAttached:
    """Give a newborn adapter what is saved in `folder`.

    Raises:
        ModelError: it is for another model.
    """
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors.pop(f"base_model.model.{NAME}.weight", None)  # a sequence classifier's head, which is put on apart
        outcome = set_peft_model_state_dict(attached.wrapper, tensors)
    except (KeyError, RuntimeError, SafetensorError) as problem:
        raise misfit(folder, str(problem).splitlines()[0]) from problem
    learnt = {f"base_model.model.{name}" for name in attached.trainable}
    missing = [key for key in outcome.missing_keys if key in learnt]
    if missing or outcome.unexpected_keys:
        raise misfit(folder, (missing + list(outcome.unexpected_keys))[0])
    return attached


def misfit(folder: Path, odd: str) -> ModelError:
    """An adapter on the wrong model."""
    return ModelError(f"{folder}: the adapter does not fit this model ({odd} among others)", "load it on the base it was trained on")


LAYERS: Mapping[type, type[LoraLinear]] = {PlainLinear: LoraLinear}
"""Kind of base layer → the LoRA layer of ours that is put over it."""


def attach_config(model: PreTrainedModel, config: PeftConfig, layers: Mapping[type, type[LoraLinear]] = LAYERS) -> PeftAttached:
    """Put an adapter on a model by a peft configuration; a LoRA by our layers wherever there is one for the base layer.

    Raises:
        ModelError: no layer of that name.
    """
    if isinstance(config, LoraConfig):
        config._register_custom_module(dict(layers))  # type: ignore[bad-assignment]
    kind = str(getattr(config.peft_type, "value", config.peft_type)).replace("_", " ").lower()
    try:
        with warnings.catch_warnings():
            # peft asks transformers for a name that transformers is about to change; neither is the user's business.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # It ties the rows of tokens by itself, and warns all the same; a LoRA on a tied layer is refused when it is merged.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
            wrapper = get_peft_model(model, config)
    except ValueError as problem:
        names = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)})
        what = str(problem).splitlines()[0]
        raise ModelError(f"{kind} found nothing to adapt: {what}", f"name targets among: {', '.join(names)}") from problem
    model.train(model.training)  # peft's new layers are born training, whatever the model does: their dropout would be heard in answers
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    attached = PeftAttached(model, {name: p for name, p in model.named_parameters() if p.requires_grad})
    attached.wrapper = wrapper  # type: ignore[assignment]
    attached.notes += _notes(model)
    return attached


def _notes(model: PreTrainedModel) -> list[str]:
    """What this adapter cannot do as well as ours, or not at all."""
    notes = []
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    foreign = sorted({type(layer.get_base_layer()).__name__ for layer in layers if not exact(layer)})
    if foreign and model.dtype != torch.float32:
        notes.append(f"{', '.join(foreign)} layers add their delta after rounding to {model.dtype}: small steps may be lost there")
    experts = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.dim() == 3 and "lora" not in name}
    if experts:
        notes.append(f"the experts of {len(experts)} layers are single tensors, which this adapter leaves as they are")
    return notes


def exact(layer: nn.Module) -> bool:
    """Whether a layer's base and delta meet before the one rounding."""
    return isinstance(layer, LoraLinear) and not any(layer.lora_variant.values())


def refuse_tied(model: PreTrainedModel) -> None:
    """A delta for one of two layers that hold the same weight cannot be merged: the other would get it too.

    Raises:
        ModelError: there is one.
    """
    holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    layers = [(name, module.get_base_layer()) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    if tied := [name for name, base in layers if holders[id(getattr(base, "weight", None))] > 1]:
        why = "its weight is also another layer's (the embedding is the head), which merging would change as well"
        raise ModelError(f"{', '.join(tied)} cannot have a LoRA of its own: {why}", f"leave {tied[0].rsplit('.', 1)[-1]} out of `targets`")
