"""The last blocks alone, as in feature-based transfer. https://arxiv.org/abs/1911.03090"""

from typing import ClassVar

from pydantic import PositiveInt
from torch import nn
from transformers import PreTrainedModel

from etude.adaptation.whole import WholeAdaptation, WholeAttached, attach_where
from etude.errors import ModelError


class LastLayers(WholeAdaptation):
    """The top blocks and the norm behind them change; below them nothing is kept for a backward pass."""

    kind: ClassVar[str] = "last_layers"
    layers: PositiveInt = 2
    """How many of the top blocks."""
    head: bool = False
    """Whether the head changes too; where it is also the embedding, that changes with it."""

    def attach(self, model: PreTrainedModel, *, seed: int) -> WholeAttached:
        stacks = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) > 1)
        stack, blocks = next(stacks, ("", None))
        if blocks is None:
            raise ModelError("this model has no stack of blocks to choose the last of", "choose by name: `adapt: {kind: parameters}`")
        count = len(blocks)
        if self.layers > count:
            raise ModelError(f"adapt.layers is {self.layers}, and the model has {count} blocks", f"set it to at most {count}")
        chosen = {id(p) for i in range(count - self.layers, count) for p in blocks[i].parameters()}
        beside = model.get_submodule(stack.rpartition(".")[0]).children()
        if norms := [module for module in beside if "norm" in type(module).__name__.lower()]:
            chosen |= {id(p) for p in norms[-1].parameters()}
        if self.head and (head := model.get_output_embeddings()) is not None:
            chosen |= {id(p) for p in head.parameters()}
        names = {name for name, p in model.named_parameters() if id(p) in chosen}
        return attach_where(model, names.__contains__, "")
