"""Metrics to Trackio: local, SQLite, looks like wandb."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import PrivateAttr

from etude.engine.trackers.contract import Tracker


class Trackio(Tracker):
    """Trackio, on this machine or in a Space. https://huggingface.co/docs/trackio"""

    kind: ClassVar[str] = "trackio"
    module: ClassVar[str] = "trackio"
    project: str = "etude"
    """Project that the run appears in."""
    space: str | None = None
    """Hugging Face Space (`owner/name`) to log to; by default this machine alone."""
    _run: Any = PrivateAttr()

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        trackio = self.library()
        self._run = trackio.init(project=self.project, name=run_name, config=dict(config), resume="allow", space_id=self.space, embed=False)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._run.finish()
