"""Is it still getting better? Looks at held-out rows, the best weights so far, and when to stop.

Lutz Prechelt, "Early stopping — but when?" (1998), https://doi.org/10.1007/3-540-49430-8_3
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from etude.core import ranks
from etude.recipe.schema import Train


@dataclass(frozen=True, slots=True)
class Kept:
    """Which weights a run ends with, and why."""

    figure: str
    """What was looked at, as the journal names it."""
    best_step: int
    """Whose weights are kept."""
    best: float
    last: float
    """At the last look."""
    steps_not_taken: int

    @property
    def sentence(self) -> str:
        what = self.figure.removeprefix("held_out_").replace("_", " ")
        looked = f"{what} on rows held out for this: {self.best:.4f} there, {self.last:.4f} at the last look"
        return f"the weights of step {self.best_step} are kept ({looked}; {self.steps_not_taken:,} steps were not taken)"


class Stopping:
    """Counts looks without a gain; all processes follow the first, which alone looks."""

    def __init__(self, train: Train, trainable: Mapping[str, nn.Parameter]):
        self.settings, self.every, self.trainable = train.early_stopping, train.evaluate_every, trainable
        self.figure, self.best_step, self.looks = "", 0, 0
        self.best, self.last = math.inf, math.inf
        """Lower is better, whatever the figure."""
        self.ended = False
        self.weights: dict[str, Tensor] = {}
        """The best so far, on the processor."""

    def look(self, step: int, metrics: Mapping[str, float], *, edge: bool) -> None:
        """Take what a look has found, where one was due: at the first and last step, `edge`, in any case. Every process must come."""
        settings = self.settings
        if settings is None or not (edge or (self.every and step % self.every == 0)):
            return
        gained = False
        if ranks.rank() == 0:
            self.figure = next(name for name in metrics if name.startswith("held_out_"))
            self.last = metrics[self.figure] * self._sign
            gained = self.last < self.best and (self.best == math.inf or self.best - self.last > settings.minimum_gain)
        if ranks.first(gained):
            self.best, self.best_step, self.looks = self.last, step, 0
            self.weights = {name: p.detach().to("cpu", copy=True) for name, p in self.trainable.items()}
        elif self.weights:  # before there is any finite figure there is nothing to go back to
            self.looks += 1
            self.ended = self.looks >= settings.patience

    @property
    def _sign(self) -> int:
        """Losses fall, shares rise."""
        return 1 if "loss" in self.figure else -1

    def finish(self, step: int, steps: int, say: Callable[[str], None]) -> Kept | None:
        """Give the model its best weights back, and say so; None where nothing was looked for."""
        if not self.weights:
            return None
        with torch.no_grad():
            for name, tensor in self.weights.items():
                self.trainable[name].copy_(tensor)
        kept = Kept(self.figure, self.best_step, self.best * self._sign, self.last * self._sign, steps - step)
        say(f"{'stopped early' if self.ended else 'ended'} at step {step}: {kept.sentence}")
        return kept

    @property
    def state(self) -> dict[str, Any]:
        """For a checkpoint; the weights beside it."""
        if not self.weights:
            return {}
        last = self.last if math.isfinite(self.last) else None
        counted = {"best_step": self.best_step, "looks": self.looks, "ended": self.ended}
        return {"figure": self.figure, "best": self.best, "last": last, **counted}

    def go_on(self, state: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        if state:
            self.best, self.best_step, self.looks = state["best"], state["best_step"], state["looks"]
            self.last = math.nan if state["last"] is None else state["last"]
            self.ended, self.figure, self.weights = state["ended"], state["figure"], weights
