"""Metrics to MLflow."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import PrivateAttr

from etude.engine.trackers.contract import Tracker


class MLflow(Tracker):
    """MLflow tracking, metrics sent in the background. https://mlflow.org/docs/latest/ml/tracking"""

    kind: ClassVar[str] = "mlflow"
    module: ClassVar[str] = "mlflow"
    experiment: str = "etude"
    """Experiment that the run appears in."""
    server: str | None = None
    """Address or folder; by default what `MLFLOW_TRACKING_URI` says, else MLflow's own local default."""
    _mlflow: Any = PrivateAttr()

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        self._mlflow = self.library()
        if self.server is not None:
            self._mlflow.set_tracking_uri(self.server)
        self._mlflow.set_experiment(self.experiment)
        self._mlflow.start_run(run_name=run_name)
        self._mlflow.log_dict(dict(config), "recipe.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        # In the background: a slow server must not slow the steps.
        self._mlflow.log_metrics(dict(metrics), step=step, synchronous=False)

    def finish(self) -> None:
        self._mlflow.end_run()
