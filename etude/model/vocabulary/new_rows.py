"""What does a model make of tokens that are new? At first the mean of what it made of the old ones they are written with."""

from collections.abc import Mapping
from math import gcd

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from etude.errors import ModelError

KEY = "etude_new_tokens"
"""Of a model's configuration: `[first, behind the last]`, the ids that were added to its base."""
_PROBED = 64


def new_tokens(config: PreTrainedConfig) -> range | None:
    """The ids that `etude tokenizer extend` added to a model; None where it did not."""
    ends = getattr(config, KEY, None) or getattr(config.get_text_config(), KEY, None)
    return range(*ends) if ends else None


def add_rows(model: PreTrainedModel, parts: Mapping[int, tuple[int, ...]]) -> list[str]:
    """Give a model the tokens of `parts` (new id → old ids), in its embedding, its head and the head's bias, in place.

    Each row is the mean of the old rows, taken in float32 and rounded to the weights' own type. A tied head stays tied. Rows that
    the embedding has to spare are used; where they do not suffice, it grows to the next multiple of whatever power of two up
    to 128 divided its size before, and rows that belong to no token are the mean of all old ones.

    Returns:
        What was done, in words.

    Raises:
        ModelError: quantised weights, or a model whose other weights go by the vocabulary too; old tokens no longer computed as before.
    """
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding) or not table.weight.is_floating_point():
        raise ModelError("the embedding is not a table of floating-point rows: none can be added", "extend the base before it is quantised")
    before, first, tokens = table.num_embeddings, min(parts), max(parts) + 1
    tied = _head(model) is None or _head(model).weight.data_ptr() == table.weight.data_ptr()  # type: ignore[missing-attribute]
    known = min(first, before)
    probe = torch.arange(min(known, _PROBED), device=model.device)[None]
    was = _logits(model, probe)[..., :known]
    step = gcd(before, 128)
    rows = max(before, -(-tokens // step) * step)
    if rows > before:
        model.resize_token_embeddings(rows, mean_resizing=False)
    table, head = model.get_input_embeddings(), _head(model)
    matrices: list[Tensor] = [table.weight] if tied or head is None else [table.weight, head.weight]  # type: ignore[missing-attribute]
    if head is not None and isinstance(head.bias, Tensor):
        matrices.append(head.bias)
    for matrix in matrices:
        _fill(matrix, parts, before, first)
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        setattr(config, KEY, [first, tokens])
    try:
        now = _logits(model, torch.cat([probe, torch.tensor([[tokens - 1]], device=model.device)], 1))
    except (IndexError, RuntimeError) as error:
        what = f"a {model.config.model_type!r} has more weights that go by the vocabulary than its embedding and head"
        raise ModelError(f"{what}: {error}", "take another base") from error
    if not torch.allclose(now[:, :-1, :known], was, rtol=0, atol=torch.finfo(model.dtype).eps ** 0.5 * float(was.abs().max())):
        raise ModelError("with new rows the model computes its old tokens otherwise than before", "report this with the name of the base")
    spare = f"{before - first:,} spare rows were there" if before > first else "no row was to spare"
    grown = f"{before:,} rows became {rows:,}" if rows > before else f"its {before:,} rows suffice"
    return [f"embedding: {spare}, {grown}" + ("; the head is the same matrix" if tied else "; the head, another matrix, grew likewise")]


def _head(model: PreTrainedModel) -> nn.Linear | None:
    head = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


@torch.no_grad()
def _fill(matrix: Tensor, parts: Mapping[int, tuple[int, ...]], before: int, first: int) -> None:
    """Rows of new tokens, and of none: [rows, width], or a bias of [rows]."""
    old = matrix[:first].float()
    matrix[before:] = old.mean(0).to(matrix.dtype)
    for token, made_of in parts.items():
        matrix[token] = old[list(made_of)].mean(0).to(matrix.dtype)


@torch.no_grad()
def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """[1, T, vocabulary] in float32."""
    return model(input_ids=tokens, use_cache=False).logits.float()
