"""A function of the user's own as a reward."""

import importlib.util
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

from etude.errors import TrainingError
from etude.objective.rewards.contract import Reward
from etude.recipe.strict import FileText


class ByFunction(Reward):
    """Calls `function(prompt, expected, answer)` of a Python file and takes the number that it returns."""

    kind: ClassVar[str] = "python"
    file: FileText = "reward.py"
    """The file; it is run as the recipe's own code."""
    function: str = "reward"
    """Its function."""

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def score(self, prompt: str, expected: str, answer: str) -> float:
        function = _function(self.file, self.function)
        try:
            worth = function(prompt, expected, answer)
        except Exception as problem:  # whatever the user's own code does is the user's to hear of
            what = f"{self.file}: {self.function} stopped with {type(problem).__name__}: {problem}"
            raise TrainingError(what, f"it was given the answer {answer[:200]!r}") from problem
        if not isinstance(worth, (int, float)) or not math.isfinite(worth):
            raise TrainingError(f"{self.file}: {self.function} returned {worth!r}", "let it return a finite number for every answer")
        return float(worth)


@cache
def _function(file: str, name: str) -> Callable[[str, str, str], float]:
    if not Path(file).is_file():
        raise TrainingError(f"reward: there is no file {file}", "write a Python file with a function of prompt, expected, answer")
    spec = importlib.util.spec_from_file_location("etude_reward", file)
    assert spec is not None and spec.loader is not None, "a file that is there can be read"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise TrainingError(f"{file} cannot be run: {type(problem).__name__}: {problem}", "run it by itself to see where") from problem
    if not callable(found := getattr(module, name, None)):
        raise TrainingError(f"{file} has no function {name!r}", "name one of its functions in `function`")
    return found
