"""Full tuning: every weight may change."""

from typing import ClassVar

from transformers import PreTrainedModel

from etude.adaptation.whole import WholeAdaptation, WholeAttached, attach_where


class Full(WholeAdaptation):
    """All weights change; a float32 master of each is kept, whatever the compute type."""

    kind: ClassVar[str] = "full"

    def attach(self, model: PreTrainedModel, *, seed: int) -> WholeAttached:
        return attach_where(model, lambda name: True, "")
