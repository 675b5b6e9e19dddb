"""How does TRL run a plan? By one of its trainers' own `train()`, with a callback that waits for its turn."""

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import disable_progress_bars as without_bars
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from side_by_side.plan import Plan
from side_by_side.worker import Turns


class Turn(TrainerCallback):
    """Hands over after each step, once its loss is known."""

    def __init__(self, turns: Turns):
        self.turns, self.seconds, self.began = turns, 0.0, 0.0

    def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
        self.began = time.perf_counter()  # the batch has been collated by now: TRL is not charged for it

    def on_step_end(self, *_args: object, **_kwargs: object) -> None:
        self.seconds = time.perf_counter() - self.began

    def on_log(self, *_args: object, logs: dict[str, float] | None = None, **_kwargs: object) -> None:
        if logs and "loss" in logs:
            self.turns.hand_over(seconds=self.seconds, loss=logs["loss"])


def quietly(plan: Plan) -> None:
    """The plan's threads; no bars, no advice."""
    torch.set_num_threads(plan.threads)
    transformers.logging.set_verbosity_error()
    without_bars()


def usual(side: str, work: Path, plan: Plan) -> dict[str, Any]:
    """What a trainer's configuration is told beside its own defaults: the plan, and to stay silent."""
    return dict(
        output_dir=str(work / f"{side} output"),
        use_cpu=True,
        max_steps=len(plan.steps),
        learning_rate=plan.learning_rate,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )


def given(plan: Plan, turns: Turns) -> dict[str, Any]:
    """What a trainer is given: the base, its tokenizer, a LoRA of the plan's shape, and the callback."""
    birth = LoraConfig.from_pretrained(plan.birth)
    return dict(
        model=plan.model,
        processing_class=AutoTokenizer.from_pretrained(plan.model),
        peft_config=LoraConfig(r=birth.r, lora_alpha=birth.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Turn(turns)],
    )


def run(trainer: Any, side: str, work: Path, turns: Turns, plan: Plan) -> None:
    """Start from the plan's birth, train in turns, and leave the adapter in `work`, under the side's name."""
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    outcome = set_peft_model_state_dict(trainer.model, load_file(Path(plan.birth) / "adapter_model.safetensors"))
    assert not outcome.unexpected_keys and not [key for key in outcome.missing_keys if "lora_" in key], "the same LoRA on both sides"
    turns.hand_over(ready=True)
    trainer.train()
    trainer.model.save_pretrained(str(work / side))
