"""LoRA: low-rank adaptation. https://arxiv.org/abs/2106.09685 (rank-stabilised scaling: https://arxiv.org/abs/2312.03732)"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from pydantic import Field, PositiveFloat, PositiveInt
from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation, Attached
from etude.adaptation.lora_layer import LoraLinear, PlainLinear
from etude.errors import ModelError

# Linear layers that choose experts: a delta there reroutes tokens instead of teaching them.
_ROUTERS = r".*\.(gate|router|shared_expert_gate)$"


class LoraAttached(Attached):
    """Layers hold their base beside a low-rank delta; the wrapper is peft's, for its file format."""

    wrapper: PeftModel

    @property
    def can_switch_off(self) -> bool:
        return True

    @contextmanager
    def off(self) -> Iterator[None]:
        with self.wrapper.disable_adapter():
            yield

    def merged(self) -> PreTrainedModel:
        _refuse_tied(self.model)
        return self.wrapper.merge_and_unload()

    def save(self, folder: Path) -> None:
        self.wrapper.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # an empty form; the record beside the weights says what there is to say


class Lora(Adaptation):
    """A low-rank delta beside every chosen linear layer; the base stays frozen."""

    kind: ClassVar[str] = "lora"
    rank: PositiveInt = 16
    """Of every delta."""
    alpha: PositiveFloat | None = None
    """The delta is scaled by alpha / rank; by default twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the delta's inputs that are dropped while training. Above 0 the cut into rows changes the masks."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Which linear layers: all but the head and the routers of experts, or those whose names end so."""
    rank_stabilised: bool = False
    """Scale by alpha / √rank instead."""

    @property
    def default_learning_rate(self) -> float:
        return 2e-4

    def attach(self, model: PreTrainedModel, *, seed: int) -> Attached:
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,  # type: ignore[arg-type] (peft scales by any number)
            lora_dropout=self.dropout,
            target_modules=self.targets,
            exclude_modules=_ROUTERS if self.targets == "all-linear" and _has_routers(model) else None,
            use_rslora=self.rank_stabilised,
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            attached = attach_config(model, config)
        _refuse_tied(model)
        return attached


def _refuse_tied(model: PreTrainedModel) -> None:
    """A delta for one of two layers that hold the same weight cannot be merged: the other would get it too."""
    holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    layers = [(name, module.get_base_layer()) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    if tied := [name for name, base in layers if holders[id(getattr(base, "weight", None))] > 1]:
        why = "its weight is also another layer's (the embedding is the head), which merging would change as well"
        raise ModelError(f"{', '.join(tied)} cannot have a LoRA of its own: {why}", f"leave {tied[0].rsplit('.', 1)[-1]} out of `targets`")


def _has_routers(model: PreTrainedModel) -> bool:
    return any(isinstance(module, torch.nn.Linear) and re.fullmatch(_ROUTERS, name) for name, module in model.named_modules())


def attach_config(model: PreTrainedModel, config: LoraConfig) -> LoraAttached:
    """Put LoRA layers on a model by a peft configuration, our layer wherever the base layer is a plain linear one.

    Raises:
        ModelError: no layer of that name.
    """
    config._register_custom_module({PlainLinear: LoraLinear})  # type: ignore[bad-assignment]
    try:
        with warnings.catch_warnings():
            # peft asks transformers for a name that transformers is about to change; neither is the user's business.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            wrapper = get_peft_model(model, config)
    except ValueError as problem:
        names = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)})
        what = str(problem).splitlines()[0]
        raise ModelError(f"LoRA found nothing to adapt: {what}", f"name targets among: {', '.join(names)}") from problem
    model.train(model.training)  # peft's new layers are born training, whatever the model does: their dropout would be heard in answers
    attached = LoraAttached(model, {name: p for name, p in model.named_parameters() if p.requires_grad})
    attached.wrapper = wrapper  # type: ignore[assignment]
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    foreign = sorted({type(layer.get_base_layer()).__name__ for layer in layers if not isinstance(layer, LoraLinear)})
    if foreign and model.dtype != torch.float32:
        attached.notes.append(f"{', '.join(foreign)} layers add their delta after rounding to {model.dtype}: small steps may be lost there")
    experts = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.dim() == 3 and "lora" not in name}
    if experts:
        attached.notes.append(f"the experts of {len(experts)} layers are single tensors, which this LoRA leaves as they are")
    return attached
