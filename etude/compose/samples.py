"""What does the model write by now? A few beginnings continued along the way, for a person to look at."""

import json
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.evaluation.judgement import Written
from etude.model.generate import generate
from etude.recipe.schema import Train

SAMPLES = "samples.jsonl"
LONGEST, TEMPERATURE = 64, 0.7
"""Tokens written, and how freely: the most likely token every time would soon repeat itself in a small model."""


def continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: Train, stop_ids: frozenset[int], step: int, folder: Path
) -> Iterator[str]:
    """Go on from each of the recipe's beginnings, write it to `folder` and say it; the same weights write the same."""
    prompts = [tokenizer(text)["input_ids"] or [tokenizer.eos_token_id] for text in train.samples]
    answers = generate(model, prompts, stop_ids=stop_ids, max_new_tokens=LONGEST, temperature=TEMPERATURE, seed=train.seed)
    with (folder / SAMPLES).open("a", encoding="utf-8") as file:
        for prompt, answer in zip(train.samples, answers, strict=True):
            text = str(tokenizer.decode(answer.tokens, skip_special_tokens=True))
            file.write(Written(step=step, prompt=prompt, text=text).model_dump_json() + "\n")
            yield f"step {step} wrote: {json.dumps(prompt + text, ensure_ascii=False)}"


def read_samples(folder: Path) -> tuple[Written, ...]:
    """In the order of steps; of a step that was done twice, because a run was resumed, the later."""
    file = folder / SAMPLES
    if not file.exists():
        return ()
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]  # the last may be torn
    found = {(one.step, one.prompt): one for one in map(Written.model_validate_json, lines)}
    return tuple(found[key] for key in sorted(found, key=lambda key: key[0]))
