"""Weights chosen by name."""

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from pydantic import Field
from transformers import PreTrainedModel

from etude.adaptation.whole import WholeAdaptation, WholeAttached, attach_where


class Parameters(WholeAdaptation):
    """Those weights change whose names fit a pattern, the others stay."""

    kind: ClassVar[str] = "parameters"
    patterns: Annotated[list[str], Field(min_length=1)] = ["*norm*"]
    """Of names as the model's checkpoint has them; `*` stands for anything: `*.layers.29.*`, `*norm.weight`."""

    def attach(self, model: PreTrainedModel, *, seed: int) -> WholeAttached:
        some = ", ".join([name for name, _ in model.named_parameters()][:4])
        return attach_where(model, lambda name: any(fnmatchcase(name, one) for one in self.patterns), f"names here look like {some}, …")
