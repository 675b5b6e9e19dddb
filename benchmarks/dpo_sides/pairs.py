"""What do all sides learn to prefer? Real pairs, rendered once; every side is given the same tokens.

Two shapes, cut from the same 300 pairs by their lengths alone: `long` has prompts longer than both answers together, `short` prompts
shorter than either answer. Pairs longer than a limit (below TRL's own of 1,024 tokens) are left out, so that no side cuts any.
"""

import random
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from side_by_side.texts import answered, asked

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
BETA = 0.1


class Pair(NamedTuple):
    """A prompt and two answers to it, rendered by the model's own chat template."""

    prompt: list[int]
    chosen: list[int]
    """With the end of the turn."""
    rejected: list[int]

    @property
    def paths(self) -> list[int]:
        return [len(self.prompt) + len(answer) for answer in (self.chosen, self.rejected)]

    @property
    def supervised(self) -> int:
        return len(self.chosen) + len(self.rejected)


def rendered(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> list[Pair]:
    """ShareGPT's rows → tokens."""
    pairs = []
    for row in rows:
        messages = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        better, worse = (answered(tokenizer, messages, row[name]["value"]) for name in ("chosen", "rejected"))
        pairs.append(Pair(asked(tokenizer, messages), better, worse))
    return pairs


def of_shape(shape: str, pairs: Sequence[Pair], longest: int) -> list[Pair]:
    """Those of a shape, always in the same order.

    Args:
        longest: tokens of a prompt and an answer, at most.
    """
    fits = {
        "long": lambda pair: len(pair.prompt) > pair.supervised,
        "short": lambda pair: len(pair.prompt) < min(len(pair.chosen), len(pair.rejected)),
    }[shape]
    found = [pair for pair in pairs if max(pair.paths) <= longest and fits(pair)]
    random.Random(0).shuffle(found)
    return found


def statistics(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Tokens of each part: least, median, most."""
    parts = {name: [len(getattr(pair, name)) for pair in pairs] for name in Pair._fields}
    return {name: {"least": min(lengths), "median": median(lengths), "most": max(lengths)} for name, lengths in parts.items()}
