"""What is the average of the weights so far, of which the latest count most? It is looked at, judged and saved in their place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from etude.recipe.schema import Train


class Average:
    """An exponential moving average in float32, where the recipe asks for one; training itself never sees it.

    In step t what was there keeps a share of (1 + t) / (10 + t) until that is `train.ema`, so that what a model was before it had learnt
    anything does not linger, as in https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    """

    def __init__(self, train: Train, trainable: Mapping[str, nn.Parameter]):
        self.share, self.every, self.trainable = train.ema, train.evaluate_every, trainable
        self.weights: dict[str, Tensor] = {}
        """By the parameters' names, where these lie; empty where nothing is averaged."""
        if self.share is not None:
            self.weights = {name: p.detach().clone() for name, p in trainable.items()}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Count in the weights after this step, from 1."""
        if self.share is None:
            return
        kept = min(self.share, (1 + step) / (10 + step))
        for name, average in self.weights.items():
            average.lerp_(self.trainable[name].detach(), 1 - kept)

    @contextmanager
    def shown(self, step: int, *, edge: bool) -> Iterator[None]:
        """Within this, where a look is due, the model has the average for its weights; afterwards its own again, to the bit."""
        if not self.weights or not (edge or (self.every and step % self.every == 0)):
            yield
            return
        own = {name: self.trainable[name].detach().clone() for name in self.weights}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    def finish(self, say: Callable[[str], None]) -> None:
        """Give the model the average for good, and say so."""
        if self.weights:
            self._put(self.weights)
            say(f"the weights are the average over the steps, each of which leaves it a share of {self.share:g} (`train.ema`)")

    def go_on(self, weights: Mapping[str, Tensor]) -> None:
        """With what a checkpoint has kept."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self.trainable[name].copy_(tensor)
