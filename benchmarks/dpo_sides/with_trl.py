"""How does TRL run the plan? By its own `DPOTrainer.train()`, which scores the parent with the adapter off, in every step."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from dpo_sides.pairs import BETA, Pair
from side_by_side import trl_side
from side_by_side.plan import Plan
from side_by_side.worker import Turns

SETTINGS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl unchecked": {"gradient_checkpointing": False},
    "trl float32": {"bf16": False},
}
"""Beside TRL's own defaults (bfloat16 by autocast, activation checkpointing, padding). Its DPO knows no padding-free mode at present."""


class Tokenised(DPOTrainer):
    """Learns from pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *_args: object) -> Dataset:
        return dataset


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work`."""
    plan = Plan.read(work, Pair)
    trl_side.quietly(plan)
    pairs = [pair for step in plan.steps for pair in step]
    config = DPOConfig(
        **trl_side.usual(side, work, plan),
        per_device_train_batch_size=len(plan.steps[0]),
        train_sampling_strategy="sequential",
        beta=BETA,
        **SETTINGS[side],
    )
    columns = {f"{name}_ids": [getattr(pair, name) for pair in pairs] for name in Pair._fields}
    trainer = Tokenised(args=config, train_dataset=Dataset.from_dict(columns), **trl_side.given(plan, turns))
    trl_side.run(trainer, side, work, turns, plan)
    return {"settings": SETTINGS[side]}
