"""VeRA: random projections that all layers share, and two learnt vectors for each. https://arxiv.org/abs/2310.11454"""

from typing import Annotated, ClassVar, Literal

from peft import VeraConfig
from pydantic import Field, PositiveInt
from transformers import PreTrainedModel

from etude.adaptation.peft_adapter import PeftAdaptation, PeftAttached, attach_config


class Vera(PeftAdaptation):
    """A tenth of a LoRA's parameters, or less. The projections are saved too, so that any version of peft draws the same."""

    kind: ClassVar[str] = "vera"
    peft_type: ClassVar[str] = "VERA"
    rank: PositiveInt = 256
    """Of the shared projections; it costs time, but hardly any parameters."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the delta's inputs that are dropped while training."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Which linear layers: all but the head, or those whose names end so."""

    @property
    def default_learning_rate(self) -> float:
        return 4e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        config = VeraConfig(
            r=self.rank,
            target_modules=self.targets,
            vera_dropout=self.dropout,
            projection_prng_key=seed,
            save_projection=True,
            task_type="CAUSAL_LM",
        )
        return attach_config(model, config)
