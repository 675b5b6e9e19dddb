"""What does the model write by now? A few beginnings continued along the way, for a person to look at."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import TrainingError
from etude.evaluation.judgement import Written
from etude.model.generate import generate
from etude.model.outline import Outline
from etude.recipe.schema import Stage, Train

SAMPLES = "samples.jsonl"
LONGEST, TEMPERATURE = 64, 0.7
"""Tokens written, and how freely: the most likely token every time would soon repeat itself in a small model."""


def check_samples(stage: Stage, outline: Outline) -> None:
    """Refuse beginnings that leave the model nothing to write, before it is trained for hours.

    Raises:
        TrainingError: one fills its context.
    """
    context = getattr(outline.config.get_text_config(decoder=True), "max_position_embeddings", None)
    for text, prompt in zip(stage.train.samples, _prompts(stage.train, outline.tokenizer), strict=True):
        if context is not None and len(prompt) >= (left := context - stage.adapt.virtual_tokens):
            shown = json.dumps(text if len(text) <= 40 else text[:40] + "…", ensure_ascii=False)
            what = f"train.samples: {shown} has {len(prompt):,} tokens; the model reads {left:,}, what it writes counted"
            raise TrainingError(what, "give it a shorter beginning")


def continued(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Train,
    stop_ids: frozenset[int],
    step: int,
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[str]:
    """Go on from each of the recipe's beginnings, write it to `folder` and say it; the same weights write the same."""
    prompts = _prompts(train, tokenizer)
    answers = generate(model, prompts, stop_ids=stop_ids, max_new_tokens=LONGEST, temperature=TEMPERATURE, seed=train.seed, say=say)
    torn = (folder / SAMPLES).exists() and (folder / SAMPLES).read_bytes()[-1:] not in (b"", b"\n")
    with (folder / SAMPLES).open("a", encoding="utf-8") as file:
        file.write("\n" if torn else "")
        for prompt, answer in zip(train.samples, answers, strict=True):
            text = str(tokenizer.decode(answer.tokens, skip_special_tokens=True))
            file.write(Written(step=step, prompt=prompt, text=text).model_dump_json() + "\n")
            yield f"step {step} wrote: {json.dumps(prompt + text, ensure_ascii=False)}"


def read_samples(folder: Path, say: Callable[[str], None]) -> tuple[Written, ...]:
    """In the order of steps; of a step done twice, because a run was resumed, the later. What a crash tore is left out and said."""
    file = folder / SAMPLES
    if not file.exists():
        return ()
    found, torn = dict[tuple[int, str], Written](), 0
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):  # a text may hold what `splitlines` takes for a line's end
        try:
            if line:
                one = Written.model_validate_json(line)
                found[one.step, one.prompt] = one
        except ValidationError:
            torn += 1
    if torn:
        say(f"{file.name}: lines torn as a process ended, which are left out: {torn}")
    return tuple(found[key] for key in sorted(found, key=lambda key: key[0]))


def _prompts(train: Train, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] or [tokenizer.eos_token_id] for text in train.samples]
