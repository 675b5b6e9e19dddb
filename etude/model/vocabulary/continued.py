"""How does a byte-level BPE learn a new language or domain without forgetting an id? Its merges go on where they ended."""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Tokenizer

from etude.errors import DataError, ModelError

_AT_ONCE = 1 << 20
"""Characters that are parted at once."""
_LONGEST = 64
"""Pieces of one part of a text that are counted together; rows of dashes cost time and teach nothing."""

Words = list[tuple[list[str], int]]


@dataclass(frozen=True, slots=True)
class Continued:
    """A tokenizer with more merges."""

    tokenizer: Tokenizer
    """Every old token has its old id; new ones follow the last."""
    parts: dict[int, tuple[int, ...]]
    """New id → the old tokens that it is made of, in the order in which they were learnt."""
    unused: int
    """How many of them only ever occur inside longer new ones."""


def continued(
    tokenizer: Tokenizer, words: Words, add: int, *, minimum_count: int = 2, learnt: Callable[[], None] = lambda: None
) -> Continued:
    """Go on with a byte-level BPE's merges on text, as it is written by its old ones.

    New merges rank behind all old ones, and none makes a token that was there: so a text is first written as it always was, and
    then joined further. https://arxiv.org/abs/1508.07909, begun from merges instead of from bytes.

    Args:
        words: of that text, as `counted` gives them.
        add: how many tokens, at most.
        minimum_count: how often a pair must occur to become one.
        learnt: called for each new token.

    Raises:
        ModelError: it is no byte-level BPE.
        DataError: no pair occurs so often.
    """
    check_byte_level(tokenizer)
    state = json.loads(tokenizer.to_str())
    old = tokenizer.get_vocab(with_added_tokens=True)
    joining = _Joining(words, old)
    merges: list[tuple[str, str]] = []
    while len(merges) < add and (pair := joining.best(minimum_count)) is not None:
        joining.join(pair)
        merges.append(pair)
        learnt()
    if not merges:
        raise DataError(f"nothing to join: no pair of tokens occurs {minimum_count} times", "name files that this tokenizer writes badly")
    vocabulary = dict(old)  # added tokens among them: a token that the model does not know would be given another id when read back
    first = max(old.values()) + 1
    vocabulary |= {left + right: first + i for i, (left, right) in enumerate(merges)}
    state["model"]["vocab"] = vocabulary
    state["model"]["merges"] += [list(pair) for pair in merges]
    parts: dict[str, tuple[int, ...]] = {}
    for left, right in merges:
        parts[left + right] = sum((parts.get(side) or (old[side],) for side in (left, right)), ())
    return Continued(
        Tokenizer.from_str(json.dumps(state, ensure_ascii=False)),
        {vocabulary[name]: made_of for name, made_of in parts.items()},
        len(parts.keys() - joining.used()),
    )


def check_byte_level(tokenizer: Tokenizer) -> None:
    """Refuse what has no byte-level merges to go on with.

    Raises:
        ModelError: what it is instead.
    """
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    steps = state["pre_tokenizer"] or {}
    kinds = {step.get("type") for step in (steps, *steps.get("pretokenizers", ()))}
    if model["type"] != "BPE":
        what = {"Unigram": "a unigram model (SentencePiece)", "WordPiece": "WordPiece"}.get(model["type"], f"{model['type']}")
    elif "ByteLevel" not in kinds and (model.get("byte_fallback") or not model["merges"]):
        what = "a BPE over characters with bytes to fall back on (SentencePiece)" if model["merges"] else "a vocabulary of characters"
    elif "ByteLevel" not in kinds or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        what = "a BPE over characters"
    else:
        return
    raise ModelError(
        f"this tokenizer is {what}: it has no byte-level merges to go on with",
        "extend a base with byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM and most since); or train a tokenizer and a model of your own",
    )


def counted(tokenizer: Tokenizer, texts: Iterable[str]) -> Words:
    """The parts of texts that a tokenizer writes in more than one token, as these, with how often they occur, sorted."""
    normaliser, splitter, model = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model
    counts: Counter[str] = Counter()
    for text in texts:
        for piece in _pieces(text):
            normal = normaliser.normalize_str(piece) if normaliser is not None else piece
            counts.update(word for word, _ in splitter.pre_tokenize_str(normal))
    words: Counter[tuple[str, ...]] = Counter()
    for word, count in counts.items():
        tokens = [token.value for token in model.tokenize(word)]
        for at in range(0, len(tokens), _LONGEST):
            if len(some := tokens[at : at + _LONGEST]) > 1:
                words[tuple(some)] += count
    return [(list(word), words[word]) for word in sorted(words)]


def _pieces(text: str) -> Iterator[str]:
    """A long text in several, cut behind a line where there is one."""
    while len(text) > _AT_ONCE:
        cut = text.rfind("\n", 0, _AT_ONCE) + 1 or _AT_ONCE
        yield text[:cut]
        text = text[cut:]
    yield text


class _Joining:
    """Words as they are written so far, and how often each pair of neighbours occurs in them."""

    def __init__(self, words: Words, taken: Iterable[str]):
        """`taken`: tokens that are there already, and are not made a second time."""
        self.words, self.taken = list(words), set(taken)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for i, (word, count) in enumerate(words):
            for pair in pairwise(word):
                self.counts[pair] += count
                self.where[pair].add(i)
        # Equal counts go by their letters, so that the order of the texts does not matter.
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.heap)

    def best(self, least: int) -> tuple[str, str] | None:
        """The most frequent pair that makes a new token; None where none occurs so often."""
        while self.heap:
            count, pair = heapq.heappop(self.heap)
            if "".join(pair) in self.taken or self.counts[pair] < least:
                continue
            if -count == self.counts[pair]:
                return pair
            heapq.heappush(self.heap, (-self.counts[pair], pair))  # it has become rarer since it was put there
        return None

    def join(self, pair: tuple[str, str]) -> None:
        """Write it as one wherever it occurs."""
        name = "".join(pair)
        self.taken.add(name)
        changed: set[tuple[str, str]] = set()
        for i in self.where.pop(pair):
            word, count = self.words[i]
            for neighbours in pairwise(word):
                self.counts[neighbours] -= count
            joined = _joined(word, pair, name)
            for neighbours in pairwise(joined):
                self.counts[neighbours] += count
                self.where[neighbours].add(i)
                changed.add(neighbours)
            self.words[i] = (joined, count)
        for neighbours in changed:
            heapq.heappush(self.heap, (-self.counts[neighbours], neighbours))

    def used(self) -> set[str]:
        """Every token that is written somewhere."""
        return {token for word, _ in self.words for token in word}


def _joined(word: list[str], pair: tuple[str, str], name: str) -> list[str]:
    joined, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            joined.append(name)
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return joined
