"""Metrics to Weights & Biases."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import PrivateAttr

from etude.engine.trackers.contract import Tracker


class WeightsAndBiases(Tracker):
    """Weights & Biases; its own settings (`WANDB_MODE=offline`, the key) are left as they are. https://docs.wandb.ai"""

    kind: ClassVar[str] = "wandb"
    module: ClassVar[str] = "wandb"
    project: str = "etude"
    """Project that the run appears in."""
    entity: str | None = None
    """User or team; by default the account's own."""
    _run: Any = PrivateAttr()

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        wandb = self.library()
        # An id of our own makes a resumed run one run; these characters are forbidden in it.
        identity = re.sub(r"[/\\#?%:]", "-", run_name)
        self._run = wandb.init(project=self.project, entity=self.entity, name=run_name, id=identity, resume="allow", config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._run.finish()
