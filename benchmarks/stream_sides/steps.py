"""What both measurements do: random rows, one optimizer step, the highest anonymous memory."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from etude import catalog
from etude.adaptation.contract import Attached
from etude.core.sample import Example, Sample
from etude.data.rows import Cut
from etude.engine.optimizer import make_optimizer
from etude.engine.step import take_step
from etude.model.pages import anonymous_memory
from etude.model.policy import Policy
from etude.objective.next_token import NextToken
from etude.recipe.schema import Train


def examples_of(count: int, length: int, vocabulary: int, seed: int) -> list[Example]:
    """Random tokens, all of them learnt: the time does not depend on what they say."""
    draw = np.random.default_rng(seed)
    weights = (np.arange(length) > 0).astype(np.float32)
    rows = (draw.integers(3, vocabulary, length).astype(np.int32) for _ in range(count))
    return [Example((Sample(tokens, weights),), "random", row) for row, tokens in enumerate(rows, 1)]


def stepper(attached: Attached, dtype: torch.dtype, tokens_per_row: int) -> Callable[[Sequence[Example]], float]:
    """Takes one optimizer step on examples and gives its loss."""
    settings = Train.model_validate({}, context={"tables": catalog.TABLES})
    optimizer = make_optimizer(attached, settings, 2e-4)
    policy, parameters = Policy(attached.model, compute=dtype), list(attached.trainable.values())
    cut = Cut(tokens_per_row, 16, "forest")
    attached.model.train()
    return lambda examples: take_step(policy, NextToken(), examples, cut, optimizer, parameters, clip=settings.clip).metrics["loss"]


@contextmanager
def watched() -> Iterator[list[int]]:
    """Within this its one number is the highest anonymous memory so far, looked at ten times a second."""
    highest, over = [anonymous_memory() or 0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            highest[0] = max(highest[0], anonymous_memory() or 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()
