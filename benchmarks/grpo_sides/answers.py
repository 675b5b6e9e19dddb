"""What do all sides learn from? Answers that the base itself has written: same tokens, same old log-probabilities, same advantages.

Two shapes. `groups`: several answers to one prompt, each until its turn ends. `tree`: a prompt, branches of the policy's own tokens below
it, and leaves below each branch, as a search over unfinished answers or turns leaves behind; every token below the prompt is learnt,
those of a branch once for each of its leaves. Lengths of branches and leaves are fixed: writing goes on over the end of a turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from etude.model.generate import generate
from etude.objective.grpo import GRPO
from side_by_side.judging import log_probabilities
from side_by_side.texts import asked, reviews

QUESTION = "Here is how a film review begins. In a few sentences of your own, say what its author thinks of the film, and why.\n\n"


class Answer(NamedTuple):
    """One path below a prompt."""

    prompt: list[int]
    tokens: list[int]
    """What the policy wrote; all of it is learnt."""
    old: list[float]
    """Of each token, its log-probability when it was written."""
    advantage: float

    @property
    def paths(self) -> list[int]:
        return [len(self.prompt) + len(self.tokens)]

    @property
    def supervised(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a shape is, in tokens and answers."""

    prompt: int
    answers: int
    """To a prompt, or below a branch."""
    tokens: int
    """Of an answer at most; of a leaf exactly."""
    branches: int = 0
    """Below a prompt; 0 where answers stand on the prompt itself."""
    branch: int = 0
    """Tokens of a branch."""
    batches: int = 1
    """Prompts; a step has one."""
    passes: int = 2
    """Over the same answers."""


def batches_of(size: Size, folder: str, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> list[list[Answer]]:
    """One batch for each prompt: always the same ones on the same machine."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    return [_batch(size, model, prompt, stop_ids, seed) for seed, prompt in enumerate(_prompts(size, tokenizer))]


def _prompts(size: Size, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Beginnings of film reviews, so cut that with the question they have as many tokens as are wanted."""
    around = len(asked(tokenizer, [{"role": "user", "content": QUESTION}]))

    def cut() -> Iterator[list[int]]:
        for review in reviews("imdb"):
            text = review["text"].replace("<br />", "\n")
            ends = [end for _, end in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
            if len(ends) > size.prompt - around:
                yield asked(tokenizer, [{"role": "user", "content": QUESTION + text[: ends[size.prompt - around - 1]]}])

    return list(islice(cut(), size.batches))


def _batch(size: Size, model: nn.Module, prompt: list[int], stop_ids: frozenset[int], seed: int) -> list[Answer]:
    if not size.branches:
        written = _written(model, [prompt] * size.answers, size.tokens, stop_ids, seed)
    else:
        nothing: frozenset[int] = frozenset()
        branches = _written(model, [prompt] * size.branches, size.branch, nothing, seed)
        above = [branch for branch in branches for _ in range(size.answers)]
        leaves = _written(model, [prompt + branch for branch in above], size.tokens, nothing, seed + 1000)
        written = [branch + leaf for branch, leaf in zip(above, leaves, strict=True)]
    advantages = GRPO().advantages(np.asarray([_reward(tokens) for tokens in written]))
    scored = [log_probabilities(model, prompt, tokens).tolist() for tokens in written]
    return [Answer(prompt, tokens, old, value) for tokens, old, value in zip(written, scored, advantages.tolist(), strict=True)]


def _written(model: nn.Module, prompts: list[list[int]], tokens: int, stop_ids: frozenset[int], seed: int) -> list[list[int]]:
    found = generate(model, prompts, stop_ids=stop_ids, max_new_tokens=tokens, temperature=1.0, seed=seed)
    return [[*one.tokens, *([] if one.stop is None else [one.stop])] for one in found]


def _reward(tokens: list[int]) -> float:
    """The share of different tokens: a reward that tells any two answers apart."""
    return len(set(tokens)) / len(tokens)
