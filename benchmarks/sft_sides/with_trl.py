"""How does TRL run the plan? By its own `SFTTrainer.train()`, with a callback that waits for its turn."""

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from datasets import disable_progress_bars as without_bars
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from sft_sides.rows import Plan
from sft_sides.worker import Turns

SETTINGS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl padding-free": {"gradient_checkpointing": False, "padding_free": True},
    "trl padded": {"gradient_checkpointing": False},
    "trl float32": {"bf16": False},
}
"""Beside TRL's own defaults (bfloat16 by autocast, activation checkpointing, padding)."""


class _Turn(TrainerCallback):
    def __init__(self, turns: Turns):
        self.turns, self.seconds, self.began = turns, 0.0, 0.0

    def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
        self.began = time.perf_counter()  # the batch has been collated by now: TRL is not charged for it

    def on_step_end(self, *_args: object, **_kwargs: object) -> None:
        self.seconds = time.perf_counter() - self.began

    def on_log(self, *_args: object, logs: dict[str, float] | None = None, **_kwargs: object) -> None:
        if logs and "loss" in logs:
            self.turns.hand_over(seconds=self.seconds, loss=logs["loss"])


def train(side: str, work: Path, turns: Turns) -> dict[str, object]:
    """Run all steps of the plan in `work` and leave the adapter there, under the side's name."""
    plan = Plan.read(work)
    torch.set_num_threads(plan.threads)
    transformers.logging.set_verbosity_error()
    without_bars()
    rows = [row for step in plan.steps for row in step]
    config = SFTConfig(
        output_dir=str(work / f"{side} output"),
        use_cpu=True,
        per_device_train_batch_size=len(plan.steps[0]),
        max_steps=len(plan.steps),
        train_sampling_strategy="sequential",
        learning_rate=plan.learning_rate,
        lr_scheduler_type="constant",
        max_length=None,  # its default would cut the long rows at 1,024 tokens
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **SETTINGS[side],
    )
    birth = LoraConfig.from_pretrained(plan.birth)
    trainer = SFTTrainer(
        model=plan.model,
        args=config,
        processing_class=AutoTokenizer.from_pretrained(plan.model),
        peft_config=LoraConfig(r=birth.r, lora_alpha=birth.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"),
        train_dataset=Dataset.from_dict({"input_ids": [row.tokens for row in rows], "labels": [row.labels for row in rows]}),
        callbacks=[_Turn(turns)],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    outcome = set_peft_model_state_dict(trainer.model, load_file(Path(plan.birth) / "adapter_model.safetensors"))
    assert not outcome.unexpected_keys and not [key for key in outcome.missing_keys if "lora_" in key], "the same LoRA on both sides"
    turns.hand_over(ready=True)
    trainer.train()
    trainer.model.save_pretrained(str(work / side))
    return {"settings": SETTINGS[side]}
