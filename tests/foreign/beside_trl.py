"""The same rows, start and optimizer for one of TRL's trainers and for etude."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tiny
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from etude.adaptation.contract import Adaptation
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.core.sample import Example, Sample
from etude.data.rows import Cut
from etude.objective.contract import Objective

STEPS, RATE = 3, 5e-3
ADAPTATIONS: dict[str, Adaptation] = {"full": Full(), "lora": Lora(rank=4)}
# Prompts, then the two answers to each: alike at first, of one length, one far longer. Every answer ends with the end of text.
PROMPTS = [[1, 3, 9, 4, 11, 5], [1, 3, 9, 4, 11, 40], [1, 3, 9, 20], [1, 30, 31], [1, 3, 9, 4, 11, 5, 8], [1, 7]]
BETTER = [[5, 6], [12, 13, 5, 6, 7], [14, 5, 3], [20], [7, 7, 8, 50, 51, 52], [33, 34]]
WORSE = [[7], [12, 13, 9], [14, 55, 56, 57, 58, 59], [21], [7, 8], [33, 34, 35, 36]]
END = 2


def answer(prompt: list[int], said: list[int], role: str = "") -> Sample:
    return tiny.sample([*prompt, *said, END], [0] * len(prompt) + [1] * (len(said) + 1), role)


def answered() -> list[Example]:
    return tiny.examples_of([answer(prompt, said) for prompt, said in zip(PROMPTS, BETTER, strict=True)])


def pairs(prompts: list[list[int]] = PROMPTS) -> list[Example]:
    rows = enumerate(zip(prompts, BETTER, WORSE, strict=True), 1)
    return [Example((answer(p, better, "chosen"), answer(p, worse, "rejected")), "made", row) for row, (p, better, worse) in rows]


def rated() -> list[Example]:
    roles = ["desirable", "undesirable", "desirable", "desirable", "undesirable", "desirable"]
    rows = zip(PROMPTS, BETTER, WORSE, roles, strict=True)
    return tiny.examples_of([answer(p, better if role == "desirable" else worse, role) for p, better, worse, role in rows])


@cache
def words() -> PreTrainedTokenizerFast:
    """The token 17 is the word "17"."""
    names = {"<pad>": 0, "<s>": 1, "</s>": END} | {str(i): i for i in range(3, tiny.VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def written(tokens: Sequence[int]) -> str:
    """As TRL is given it: the end of text is for TRL to add."""
    return "".join({1: "<s>", END: ""}.get(token, f" {token}") for token in tokens)


def parts(sample: Sample) -> tuple[list[int], list[int]]:
    """Prompt and answer."""
    learnt = sample.weight > 0
    return sample.tokens[~learnt].tolist(), sample.tokens[learnt].tolist()


def columns_of_answers(examples: list[Example]) -> dict[str, list]:
    both = [parts(example.samples[0]) for example in examples]
    return {"prompt": [written(prompt) for prompt, _ in both], "completion": [written(said) for _, said in both]}


def columns_of_pairs(examples: list[Example]) -> dict[str, list]:
    both = [[parts(sample) for sample in example.samples] for example in examples]
    named = {name: [written(answers[i][1]) for answers in both] for i, name in enumerate(("chosen", "rejected"))}
    return {"prompt": [written(answers[0][0]) for answers in both], **named}


def trains(trainer: Any, config: Any, model: Any, columns: dict[str, list], folder: Path, *, others: dict | None = None, **options: Any):
    """A TRL trainer that has taken its steps, each on all rows.

    Args:
        others: what the trainer takes besides, such as the reference model.
        options: of TRL's config.
    """
    import datasets  # comes with TRL, and is slow to import

    usual = dict(learning_rate=RATE, lr_scheduler_type="constant", optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0)
    usual |= dict(per_device_train_batch_size=len(columns["prompt"]), max_steps=STEPS, logging_steps=1)
    usual |= dict(use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, report_to="none", save_strategy="no")
    rows = datasets.Dataset.from_dict(columns)
    made = trainer(model, args=config(str(folder), **usual | options), train_dataset=rows, processing_class=words(), **others or {})
    made.train()
    return made


def history(trainer: Any) -> list[dict[str, float]]:
    """What TRL told of each step."""
    return [one for one in trainer.state.log_history if "loss" in one]


def fits(folder: Path, objective: Objective, examples: list[Example], adaptation: str = "full", **options: Any) -> tiny.Made:
    """A course that is not run yet, so that an adapter at birth can be kept for TRL. Its rows are small, and share what they can."""
    usual = dict(steps=STEPS, learning_rate=RATE, examples_per_step=len(examples), schedule={"kind": "constant", "warmup": 0})
    (folder / "run").mkdir(parents=True)
    return tiny.course(folder / "run", ADAPTATIONS[adaptation], objective, examples=examples, cut=Cut(40, 1), **usual | options)


def start_of(made: tiny.Made, folder: Path) -> tuple[PreTrainedModel | PeftModel, dict[str, PreTrainedModel]]:
    """The same start in plain transformers, or in plain peft; and TRL's reference, which it needs only where no adapter can be off."""
    base = tiny.copy_of(tiny.llama(), "eager")
    if made.attached.can_switch_off:
        (folder / "adapter").mkdir()
        made.attached.save(folder / "adapter")
        return PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True), {}
    return base, {"ref_model": tiny.copy_of(base, "eager")}
