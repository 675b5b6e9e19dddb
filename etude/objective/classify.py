"""Classes: a head with one output a label, or the labels' own words weighed against each other."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr
from torch import Tensor

from etude.core.forest import Forest
from etude.core.sample import Example, Sample
from etude.core.scores import Outputs, Scores
from etude.errors import DataError
from etude.objective.contract import NOTHING, Objective, Terms

MOST_LABELS = 1000


class Classify(Objective):
    """Cross-entropy over labels, which are the rows' answers (https://huggingface.co/docs/transformers/tasks/sequence_classification).

    With a head, the final hidden state is read at the prompt's last token: where an answer would begin, so that it is the state which the
    parent would have chosen its word from, and nothing of the answer is seen. The vocabulary's head is not computed.
    """

    kind: ClassVar[str] = "classify"
    labels: Annotated[list[str], Field(max_length=MOST_LABELS)] = []
    """The labels in the order of the head's outputs; by default those found in the rows, sorted."""
    head: bool = True
    """Train a head with one output a label. Without, the log-probabilities of the labels' own words are weighed, as siblings behind
    one prompt that is computed once; the result writes text as its parent did."""

    _words: dict[bytes, int] = PrivateAttr(default_factory=dict)
    _answers: tuple[tuple[int, ...], ...] = PrivateAttr(default=())
    _usual: str = PrivateAttr(default="")

    @property
    def outputs(self) -> Outputs | None:
        return Outputs(tuple(self.labels), "leaf") if self.head else None

    @property
    def unit(self) -> str:
        return "nats a label"

    @property
    def watched(self) -> tuple[str, ...]:
        return ("accuracy",)

    @property
    def choices(self) -> Mapping[str, tuple[int, ...]]:
        return dict(zip(self.labels, self._answers, strict=True)) if self._answers else {}

    @property
    def usual_choice(self) -> str:
        return self._usual

    def settle(
        self, train: Sequence[Example], held_out: Sequence[Example], decode: Callable[[Sequence[int]], str], say: Callable[[str], None]
    ) -> "Classify":
        texts: dict[bytes, str] = {}
        first: dict[str, bytes] = {}
        seen: Counter[str] = Counter()
        for number, example in enumerate((*train, *held_out)):
            word = _answer(example)
            label = texts.setdefault(word.tobytes(), "") or decode(word.tolist()).strip()
            if self.labels and label not in self.labels:
                what = f"{example.source}:{example.row}: the label {label[:60]!r} is none of `objective.labels`"
                raise DataError(what, f"name it there, or leave out the row; named are {', '.join(map(repr, self.labels[:5]))}")
            texts[word.tobytes()] = label
            first.setdefault(label, word.tobytes())
            seen[label] += number < len(train)
        labels = self.labels or sorted(first)
        _check(labels, first)
        rows = [f"{label!r} ({seen[label]:,} training rows)" for label in labels]
        say(f"{len(labels)} labels: {', '.join(rows[:20])}{', …' if len(rows) > 20 else ''}")
        settled = self.model_copy(update={"labels": labels})
        settled._words = {word: labels.index(label) for word, label in texts.items()}
        settled._answers = tuple(tuple(np.frombuffer(first[label], np.int32).tolist()) for label in labels if label in first)
        settled._usual = max(labels, key=lambda label: seen[label])
        return settled

    def arrange(self, examples: Sequence[Example]) -> list[Example]:
        """Prompts that know their label's number; without a head, each with every label's words behind it."""
        return [Example(tuple(self._samples(one)), one.source, one.row) for one in examples]

    def _samples(self, example: Example) -> list[Sample]:
        sample = example.samples[-1]
        prompt, right = sample.tokens[: sample.answer_at], self._words[_answer(example).tobytes()]
        if self.head:
            return [Sample(prompt, np.zeros(len(prompt), np.float32), value=float(right))]
        return [
            Sample(np.concatenate([prompt, np.asarray(words, np.int32)]), _behind(len(prompt), len(words)), value=float(number == right))
            for number, words in enumerate(self._answers)
        ]

    def weight(self, examples: list[Example]) -> dict[str, float]:
        return {"classify": float(len(examples))}

    def loss(self, scores: Scores, forest: Forest, reference: Scores | None = None, constants: Mapping[str, float] = NOTHING) -> Terms:
        if self.head:
            assert scores.outputs is not None, "leaves were read"
            logits, right = scores.outputs, forest.value.long()  # [S, labels], [S]
        else:
            logits, right = self._siblings(scores, forest)
        loss = F.cross_entropy(logits, right, reduction="sum")
        return Terms({"classify": loss}, {"accuracy": ((logits.argmax(-1) == right).float().sum(), "classify")})

    def _siblings(self, scores: Scores, forest: Forest) -> tuple[Tensor, Tensor]:
        """[E, labels] log-probability of each label's words behind each prompt, and [E] the right one's number."""
        number = {example: place for place, example in enumerate(dict.fromkeys(forest.example))}
        order = torch.tensor([number[example] for example in forest.example], device=forest.leaf.device).argsort(stable=True)
        each = (len(number), forest.samples // len(number))
        return forest.per_sample(scores.log_probability)[order].view(each), forest.value[order].view(each).argmax(-1)


def _answer(example: Example) -> np.ndarray:
    """The tokens of the row's last answer, the one that ends it included.

    Raises:
        DataError: a row of raw text has none.
    """
    sample = example.samples[-1]
    if sample.answer_at < 2:
        what = f"{example.source}:{example.row}: raw text, which says no label"
        raise DataError(what, "give prompt and completion, or `format: labelled` for columns `text` and `label`")
    return sample.tokens[sample.answer_at :]


def _behind(prompt: int, answer: int) -> np.ndarray:
    return np.concatenate([np.zeros(prompt, np.float32), np.ones(answer, np.float32)])


def _check(labels: Sequence[str], found: Mapping[str, bytes]) -> None:
    if len(labels) < 2:
        raise DataError(f"every row has the label {labels[0]!r}: there is nothing to tell apart", "give rows of several labels")
    if len(labels) > MOST_LABELS:
        some = ", ".join(repr(label[:30]) for label in labels[:3])
        raise DataError(f"{len(labels):,} labels, such as {some}: these are texts, not classes", "take `next-token` for such answers")
    if missing := [label for label in labels if label not in found]:
        what = f"no row has the label {', '.join(map(repr, missing[:5]))}"
        raise DataError(what, "leave it out of `objective.labels`, or give rows of it")
