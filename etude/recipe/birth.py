"""What a recipe says of a model that is yet to be born: its architecture, its size by one dial or by hand, its tokenizer."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from etude.recipe.strict import ModelText, Strict

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMB]?)")
TOKENS_PER_PARAMETER = 20
"""What Hoffmann et al. (2022, table 3, https://arxiv.org/abs/2203.15556) found to be about best for a given compute."""


def number(size: str) -> int:
    """Parameters that a size such as `15M` stands for; ValueError where it is none."""
    match = _SIZE.fullmatch(size.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError("should be a number of parameters, such as 15M, 800k or 1.5B")
    return round(float(match[1]) * _UNITS[match[2]])


def _sized(size: str) -> str:
    number(size)
    return size


def best_size(compute: float) -> int:
    """Parameters for so many floating point operations: of 6 for each parameter and token, at 20 tokens a parameter."""
    return max(1, round(math.sqrt(compute / (6 * TOKENS_PER_PARAMETER))))


def usual_step(tokens: int) -> int:
    """Tokens in one step for a stage of so many: a power of two that makes about 1,500 steps, from 1,024 to half a million."""
    return min(2**19, max(2**10, 2 ** round(math.log2(tokens / 1500))))


class Vocabulary(Strict):
    """A tokenizer trained on the text that the model will learn from; held-out text is never shown to it."""

    kind: Literal["bpe"] = "bpe"
    """Byte-pair encoding over bytes, so that any text can be written. https://arxiv.org/abs/1508.07909"""
    size: Annotated[int, Field(ge=260)] = 4096
    """Tokens in all, the 256 bytes and the end of text included."""


def _kind_of_tokenizer(value: object) -> str | None:
    return "reference" if isinstance(value, str) else "trained" if isinstance(value, (dict, Vocabulary)) else None


class Newborn(Strict):
    """A model with random weights."""

    architecture: str = "llama"
    """A family by transformers' own name (`model_type`: llama, qwen3, mistral, gpt2, mixtral, qwen3_moe …), or a class of one's own as
    `module:Class`, a transformers model with its `config_class`; its code is run because it is named here."""
    size: Annotated[str, AfterValidator(_sized)] | None = None
    """How many parameters in all, embeddings counted: `15M`, `1.2B`. Depth, width and heads follow, as wide as 64 times the depth."""
    compute: PositiveFloat | None = None
    """Instead of a size: floating point operations to be spent. Size and tokens follow by Hoffmann et al. (2022): 20 tokens a parameter;
    without `tokens_per_step` a stage on it makes about 1,500 steps, which is said."""
    config: dict[str, Any] = {}
    """Fields of the family's configuration, by transformers' names; they go before what the size says."""
    tokenizer: Annotated[
        Annotated[ModelText, Tag("reference")] | Annotated[Vocabulary, Tag("trained")],
        Discriminator(
            _kind_of_tokenizer,
            custom_error_type="tokenizer",
            custom_error_message="should be a model whose tokenizer is taken, or `{kind: bpe, size: …}` to train one",
        ),
    ] = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """One of its own, trained on the training text of the first stage, or the tokenizer of another model, by its name."""
    context: PositiveInt = 1024
    """Positions that it will know: the longest text that it can read."""
    seed: int = 0
    """Of the random weights."""

    @model_validator(mode="after")
    def _sized_once(self) -> "Newborn":
        if self.size is not None and self.compute is not None:
            raise ValueError("`size` and `compute` both say how large it is: keep one of them")
        if self.size is None and self.compute is None and not self.config:
            raise ValueError("needs `size` (such as 15M), `compute`, or the fields of its `config`")
        return self

    @property
    def parameters(self) -> int | None:
        """As many as the dial says; None where it is sized by hand."""
        if self.compute is not None:
            return best_size(self.compute)
        return None if self.size is None else number(self.size)

    @property
    def name(self) -> str:
        """In words, before it is born."""
        return f"newborn {self.architecture}" + (f" of {self.size}" if self.size else "")


def _kind_of_base(value: object) -> str | None:
    return "reference" if isinstance(value, str) else "newborn" if isinstance(value, (dict, Newborn)) else None


Base = Annotated[
    Annotated[ModelText, Tag("reference")] | Annotated[Newborn, Tag("newborn")],
    Discriminator(
        _kind_of_base,
        custom_error_type="base",
        custom_error_message="should be a model's name, or a mapping that says which model is to be born (`size: 15M`)",
    ),
]


def of_newborn(recipe: Any) -> Any:
    """A recipe as it was written, with what follows for stages on a newborn: all weights learn, from as many tokens as `compute` is for."""
    if not isinstance(recipe, dict) or not isinstance(base := recipe.get("base"), dict) or not isinstance(recipe.get("stages"), dict):
        return recipe
    stages = {name: _on_newborn(stage, base.get("compute")) for name, stage in recipe["stages"].items()}
    return {**recipe, "stages": stages}


def _on_newborn(stage: Any, compute: Any) -> Any:
    if not isinstance(stage, dict) or stage.get("parent", "base") != "base":
        return stage
    train = stage.get("train", {})
    if isinstance(compute, (int, float)) and compute > 0 and isinstance(train, dict) and not {"steps", "epochs", "tokens"} & train.keys():
        tokens = TOKENS_PER_PARAMETER * best_size(compute)
        step = train.get("tokens_per_step") or usual_step(tokens)
        train = {**train, "tokens": tokens, "tokens_per_step": step}
    return {"adapt": "full", **stage, "train": train}
