"""A few tokens' rows of the embedding alone: for tokens that are new. https://huggingface.co/docs/peft/package_reference/trainable_tokens"""

from typing import Annotated, ClassVar

import torch
from peft import TrainableTokensConfig
from pydantic import Field, NonNegativeInt
from transformers import PreTrainedModel

from etude.adaptation.peft_adapter import PeftAdaptation, PeftAttached, attach_config
from etude.errors import ModelError
from etude.model.vocabulary.new_rows import new_tokens


class Embeddings(PeftAdaptation):
    """What these tokens mean is learnt; what all others mean, and what the model does with them, stays to the bit."""

    kind: ClassVar[str] = "embeddings"
    peft_type: ClassVar[str] = "TRAINABLE_TOKENS"
    tokens: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    """Token ids; by default those that `etude tokenizer extend` added to the base, else the last `last` of the vocabulary."""
    last: Annotated[int, Field(ge=1)] = 8
    """How many of the last rows of the embedding learn, where no ids are named or known: tokens added to a vocabulary stand at its end."""

    @property
    def default_learning_rate(self) -> float:
        return 1e-3

    def attach(self, model: PreTrainedModel, *, seed: int) -> PeftAttached:
        table = model.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding), "tokens are looked up in a table"
        rows = table.num_embeddings
        added = new_tokens(model.config)
        tokens = self.tokens if self.tokens is not None else list(added or range(max(0, rows - self.last), rows))
        if beyond := [token for token in tokens if token >= rows]:
            raise ModelError(f"embeddings: there is no token {beyond[0]}: the vocabulary has {rows}", "name ids below that")
        embedding = next(name for name, module in model.named_modules() if module is table)
        config = TrainableTokensConfig(token_indices=tokens, target_modules=[embedding], task_type="CAUSAL_LM")
        attached = attach_config(model, config)
        if self.tokens is None:
            which = f"{len(tokens)} rows that extending the base added to" if added else f"last {len(tokens)} rows of"
            attached.notes.append(f"the {which} the embedding learn (ids {tokens[0]} to {tokens[-1]}); others by `tokens`")
        if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
            attached.notes.append("the head is another matrix and stays: what these tokens mean is learnt, not when to write them")
        return attached
