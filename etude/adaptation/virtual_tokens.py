"""Learned tokens before every sample, in peft's parameters and file format, read by the forest instead of by peft's own forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from peft.config import PromptLearningConfig
from pydantic import PositiveInt
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.adaptation.contract import Attached
from etude.adaptation.peft_adapter import PeftAdaptation, misfit, saved_config
from etude.errors import ModelError, TrainingError
from etude.model.cache import why_not_shared
from etude.model.virtual import VirtualTokens, put_on


class PeftVirtual(VirtualTokens):
    """What peft's prompt encoder gives. The encoder is a part of the model; peft's wrapper around that model is not, or it held itself."""

    def __init__(self, wrapper: PeftModel):
        super().__init__()
        self.encoder = wrapper.prompt_encoder
        self.count, self.off = wrapper.active_peft_config.num_virtual_tokens, False  # type: ignore[missing-attribute]
        self._wrapper = [wrapper]
        self._prefix = wrapper.active_peft_config.peft_type == "PREFIX_TUNING"

    @property
    def table(self) -> nn.Parameter:
        """What is learnt, where no network stands behind it."""
        return next(p for name, p in self.encoder.named_parameters() if name.endswith("embedding.weight"))

    def embeddings(self) -> Tensor | None:
        return None if self._prefix else self._wrapper[0].get_prompt(batch_size=1)[0]

    def keys_values(self) -> list[tuple[Tensor, Tensor]] | None:
        if not self._prefix:
            return None
        return [(layer.keys, layer.values) for layer in self._wrapper[0].get_prompt(batch_size=1).layers]  # type: ignore[missing-attribute]


class VirtualAdaptation(PeftAdaptation):
    """Learned tokens before every sample; at birth not their parent, without them their parent."""

    tokens: PositiveInt = 16
    """How many."""

    @property
    def virtual_tokens(self) -> int:
        return self.tokens

    @property
    def can_be_parent(self) -> bool:
        return False

    @classmethod
    def reload(cls, model: PreTrainedModel, folder: Path) -> Attached:
        config = saved_config(folder)
        assert isinstance(config, PromptLearningConfig), "peft's type says so"
        config.inference_mode = True  # what is saved is what their encoder gave, without the encoder
        attached = attach_virtual(model, config)
        attached.notes.clear()  # they were said when it was trained
        learnt = load_file(folder / "adapter_model.safetensors").get("prompt_embeddings")
        held = attached.virtual.table
        if learnt is None or learnt.shape != held.shape:
            raise misfit(folder, "prompt_embeddings")
        held.data = learnt.to(held)
        return attached


class VirtualAttached(Attached):
    """The model's own weights are untouched; without its virtual tokens it is its parent."""

    wrapper: PeftModel
    virtual: PeftVirtual

    @property
    def can_switch_off(self) -> bool:
        return True

    @contextmanager
    def off(self) -> Iterator[None]:
        self.virtual.off = True
        try:
            yield
        finally:
            self.virtual.off = False

    def decays(self, name: str) -> bool:
        return False  # a token of zeros is not nothing

    def origin(self, name: str) -> Tensor | None:
        raise TrainingError("virtual tokens are nothing in the parent, so no decay leads back to it", "leave out `train.decay_to`")

    def merged(self) -> PreTrainedModel:
        raise ModelError("virtual tokens cannot be melted into weights, so nothing can stand on them", "train further stages on a `lora`")

    def save(self, folder: Path) -> None:
        self.wrapper.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # an empty form; the record beside the weights says what there is to say


def attach_virtual(model: PreTrainedModel, config: PromptLearningConfig) -> VirtualAttached:
    """Hang the virtual tokens of a peft configuration on a frozen model.

    Raises:
        ModelError: peft does not know where to put them in this architecture, or answers could not be written behind them.
    """
    _refuse_states(model)
    try:
        wrapper = get_peft_model(model, config)
    except (ValueError, KeyError) as problem:
        what = f"{type(model).__name__}: peft finds no place for virtual tokens ({str(problem).splitlines()[0]})"
        raise ModelError(what, "take `lora`") from problem
    assert isinstance(wrapper, PeftModel), "prompt learning wraps the model"
    virtual = PeftVirtual(wrapper)
    put_on(model, virtual)
    for parameter in virtual.parameters():
        parameter.data = parameter.data.float()
    attached = VirtualAttached(model, {name: p for name, p in model.named_parameters() if p.requires_grad})
    attached.wrapper, attached.virtual = wrapper, virtual
    attached.notes.append(f"{virtual.count} virtual tokens stand before every sample: at birth this is not yet the parent")
    return attached


def _refuse_states(model: PreTrainedModel) -> None:
    """Models that keep more of a text than keys and values are written with by transformers alone, which would leave these tokens out."""
    if reason := why_not_shared(model):
        raise ModelError(f"{type(model).__name__} cannot write behind learned tokens: {reason}", "take `lora`")


@torch.no_grad()
def read_ahead(model: PreTrainedModel, count: int) -> Tensor:
    """[P, layers · 2 · key heads · head size] the keys and values of random tokens, as peft's prefix holds them.

    Raises:
        ModelError: not all that this model keeps of a token is a key and a value of one shape.
    """
    _refuse_states(model)
    tokens = torch.randint(model.config.get_text_config().vocab_size, (1, count), device=model.device)
    cache = model.base_model(input_ids=tokens, use_cache=True).past_key_values
    if len({x.shape for layer in cache.layers for x in (layer.keys, layer.values)}) != 1:
        raise ModelError(f"the keys and values of {type(model).__name__} differ in shape, and a prefix has one", "take `prompt` or `lora`")
    pairs = [torch.stack((layer.keys[0], layer.values[0])) for layer in cache.layers]  # each [2, heads, P, size]
    return torch.stack(pairs).float().permute(3, 0, 1, 2, 4).flatten(1)
