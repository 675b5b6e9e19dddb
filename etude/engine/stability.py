"""Is a step like those before it? A spike of loss or gradient norm is not learnt from; several in a row take the run back.

What is usual is the median over the last steps that were taken, and how far they scatter the median distance from it, which one
wild step cannot move (Rousseeuw and Croux, 1993, https://doi.org/10.1080/01621459.1993.10476408).
"""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from etude.errors import TrainingError
from etude.recipe.schema import Stability

_SIGMA = 1.4826
"""Median distance → standard deviation, of a normal distribution."""
_LEAST = 0.02
"""A loss that hardly scatters may still move by this share of itself."""


class Guard:
    """Remembers what is usual, decides, and counts. All processes see the same figures and so decide alike."""

    def __init__(self, settings: Stability | None):
        self.settings = settings
        self.usual: dict[str, list[float]] = {"loss": [], "gradient norm": []}
        self.reason = ""
        """Why the last step was not taken; empty where it was."""
        self.in_a_row: dict[tuple[int, ...], int] = {}
        """Where the draws began of the steps that were not taken since the last one that was, and how many examples each had."""
        self.passed: dict[tuple[int, ...], int] = {}
        """Where draws begin that are passed over, and how many examples each has."""
        self.times_back = 0
        self.events: list[str] = []

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether to take a step of this loss and this gradient norm before clipping."""
        found = {"loss": loss, "gradient norm": norm}
        if self.settings is None:
            self.reason = "" if math.isfinite(norm) else f"the gradient is not finite (loss {loss:.4g})"
        else:
            self.reason = next((why for name, value in found.items() if (why := self._spike(name, value))), "")
        if self.reason:
            return False
        self.in_a_row.clear()
        if self.settings is not None:
            for name, value in found.items():
                self.usual[name] = [*self.usual[name], value][-self.settings.window :]
        return True

    def _spike(self, name: str, value: float) -> str:
        assert self.settings is not None
        if not math.isfinite(value):
            return f"{name} is not finite"
        before = self.usual[name]
        if len(before) < self.settings.window // 2:
            return ""
        middle = median(before)
        scatter = max(_SIGMA * median(abs(one - middle) for one in before), _LEAST * abs(middle))
        if value <= middle + self.settings.threshold * scatter:
            return ""
        return f"{name} {value:.4g} is a spike: it was {middle:.4g} and scattered by {scatter:.2g}"

    def refuse(self, step: int, drawn: tuple[int, ...], examples: int, *, last: bool) -> bool:
        """Count a step that was not taken; whether the run must go back to its last checkpoint.

        Args:
            drawn: where its draw began.
            last: whether no step comes after it, which could show that the weights are sound.
        """
        self.in_a_row[drawn] = examples
        self.events.append(f"step {step} was not taken: {self.reason}")
        return self.settings is not None and (last or len(self.in_a_row) > self.settings.skips)

    def pass_over(self, step: int, to: int) -> None:
        """Going back from `step` to step `to`: what was drawn for the steps that were not taken is passed over from now on.

        Raises:
            TrainingError: it went back too often.
        """
        assert self.settings is not None, "only a guarded run goes back"
        self.times_back += 1
        self.passed |= self.in_a_row
        rows = sum(self.in_a_row.values())
        self.events.append(f"went back from step {step} to {to}, passing over {rows} rows")
        self.in_a_row.clear()
        if self.times_back > self.settings.roll_backs:
            raise TrainingError(
                f"step {step}: {self.events[-2].partition(': ')[2]}; going back {self.times_back - 1} times did not help",
                "lower train.learning_rate, or look at the rows with `etude data check`; the checkpoints are untouched",
            )

    @property
    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        row, passed = ([[list(drawn), count] for drawn, count in of.items()] for of in (self.in_a_row, self.passed))
        return {"usual": self.usual, "in_a_row": row, "passed": passed, "times_back": self.times_back, "events": self.events}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        if not state:
            return
        self.usual = {name: list(values) for name, values in state["usual"].items()}
        self.in_a_row, self.passed = ({tuple(drawn): count for drawn, count in state[of]} for of in ("in_a_row", "passed"))
        self.times_back, self.events = state["times_back"], list(state["events"])
