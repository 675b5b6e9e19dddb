"""A few tokens' rows of the embedding alone: for tokens that are new. https://huggingface.co/docs/peft/package_reference/trainable_tokens"""

from typing import Annotated, ClassVar

from peft import TrainableTokensConfig
from pydantic import Field, NonNegativeInt
from transformers import PreTrainedModel

from etude.adaptation.contract import Adaptation
from etude.adaptation.peft_adapter import PeftAttached, attach_config
from etude.errors import ModelError


class Embeddings(Adaptation):
    """What these tokens mean is learnt; what all others mean, and what the model does with them, stays to the bit."""

    kind: ClassVar[str] = "embeddings"
    tokens: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    """Token ids; by default the last `last` of the vocabulary."""
    last: Annotated[int, Field(ge=1)] = 8
    """How many of the last rows of the embedding learn, where no ids are named: tokens added to a vocabulary stand at its end."""

    @property
    def default_learning_rate(self) -> float:
        return 1e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        rows = model.get_input_embeddings().weight.shape[0]
        tokens = self.tokens if self.tokens is not None else list(range(max(0, rows - self.last), rows))
        if beyond := [token for token in tokens if token >= rows]:
            raise ModelError(f"embeddings: there is no token {beyond[0]}: the vocabulary has {rows}", "name ids below that")
        embedding = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
        return attach_config(model, TrainableTokensConfig(token_indices=tokens, target_modules=[embedding], task_type="CAUSAL_LM"))
