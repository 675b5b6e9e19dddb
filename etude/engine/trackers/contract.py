"""Where do metrics go besides the journal? What a tracker does, and why none of them can end a run.

Nothing is sent anywhere unless a recipe names a tracker.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

from etude.errors import EtudeError
from etude.recipe.strict import Leaf


class Tracker(Leaf):
    """`start` once, `log` for every line of metrics, `finish` once; a resumed run starts again under the same name."""

    @abstractmethod
    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Open the run `run_name`; `config` is the resolved recipe as plain values."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step; steps only go up."""

    @abstractmethod
    def finish(self) -> None:
        """Close the run."""

    module: ClassVar[str]
    """Of the tracker's own library; imported when a run starts."""

    def library(self) -> Any:
        """The imported library.

        Raises:
            EtudeError: it is not installed; the remedy is the one command.
        """
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            remedy = f"install it: uv sync --extra {self.kind} (or: pip install 'etude[{self.kind}]'), or take it out of `trackers`"
            raise EtudeError(f"the tracker {self.kind!r} needs {error.name}, which is not installed", remedy) from error


class Tracking:
    """All trackers of a run. A failing one is said once and counted, and the run goes on.

    Args:
        trackers: as the recipe names them.
        say: is given a message at each tracker's first failure.
    """

    def __init__(self, trackers: list[Tracker], say: Callable[[str], None]):
        self._trackers, self._say = list(trackers), say
        self.failures: dict[str, int] = {}
        """Calls that failed, by the tracker's kind."""

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Open the run in each; one that cannot open it is left out for this run.

        Raises:
            EtudeError: a tracker's library is not installed: nothing has been computed yet.
        """
        for tracker in self._trackers:
            tracker.library()
        self._trackers = [t for t in self._trackers if self._try(t, "start", run_name, config)]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of a step, to all."""
        for tracker in self._trackers:
            self._try(tracker, "log", step, metrics)

    def finish(self) -> None:
        """Close the run in each."""
        for tracker in self._trackers:
            self._try(tracker, "finish")

    def _try(self, tracker: Tracker, call: str, *arguments: Any) -> bool:
        try:
            getattr(tracker, call)(*arguments)
        except Exception as error:  # noqa: BLE001 (any failure of a foreign service must leave the run alone)
            if tracker.kind not in self.failures:
                what = f"the tracker {tracker.kind!r} failed in {call} ({type(error).__name__}: {error})"
                self._say(f"{what}; the run goes on, and the journal has everything")
            self.failures[tracker.kind] = self.failures.get(tracker.kind, 0) + 1
            return False
        return True
