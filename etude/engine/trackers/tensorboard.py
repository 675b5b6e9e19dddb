"""Metrics to TensorBoard's event files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr

from etude.engine.trackers.contract import Tracker
from etude.recipe.strict import FileText


class TensorBoard(Tracker):
    """Event files, one folder a run. https://docs.pytorch.org/docs/stable/tensorboard.html"""

    kind: ClassVar[str] = "tensorboard"
    module: ClassVar[str] = "torch.utils.tensorboard"
    folder: FileText = "tensorboard"
    """Where the runs' folders go, seen from the recipe: what `tensorboard --logdir` is given. By default in the current folder."""
    _writer: Any = PrivateAttr()

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        self._writer = self.library().SummaryWriter(log_dir=str(Path(self.folder) / run_name))
        self._writer.add_text("recipe", f"```json\n{json.dumps(dict(config), indent=2, default=str)}\n```", 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()
