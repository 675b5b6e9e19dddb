"""Byte-level BPE: pieces of words, by how often they occur; any text can be written."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from etude.model.vocabulary.contract import Say, Vocabulary

PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt-4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""GPT-2's: https://github.com/openai/gpt-2/blob/master/src/encoder.py. GPT-4's (cl100k_base of
https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py) in Llama 3's spelling:
https://github.com/meta-llama/llama3/blob/main/llama/tokenizer.py."""
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
"""The 256 characters that stand for bytes."""


class BytePairs(Vocabulary):
    """Bytes, joined pair by pair, the most frequent first. https://arxiv.org/abs/1508.07909, on bytes as in GPT-2"""

    kind: ClassVar[str] = "bpe"
    size: Annotated[int, Field(ge=257)] = 8192
    """Tokens in all: 256 bytes, the marks, and what is learnt."""
    pattern: str = "gpt-4"
    """How a text is parted before pieces are learnt: `gpt-2`, `gpt-4` (Llama 3's too), or a regular expression of what is one part."""
    split_digits: bool = False
    """Every digit is a token of its own, whatever the pattern says."""
    longest: PositiveInt = 128
    """Characters; longer parts are cut while learning, because rows of dashes cost time and teach nothing. Encoding knows no such limit."""
    minimum_count: PositiveInt = 2
    """How often a pair must occur to become a token."""
    normalisation: Literal["none", "nfc"] = "none"
    """`nfc` writes equal characters equally (Unicode's composed form): what is decoded may then differ in bytes from what was read."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            Regex(PATTERNS.get(value, value))
        except Exception as error:  # noqa: BLE001  the library raises its own bare Exception
            known = " or ".join(PATTERNS)
            raise ValueError(f"is neither {known} nor a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _room(self) -> "BytePairs":
        least = len(ALPHABET) + len(self.marks)
        if self.size < least:
            raise ValueError(f"size {self.size} has no room for 256 bytes and {len(self.marks)} marks: at least {least}")
        return self

    def pieces(self, texts: Iterator[str], say: Say) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        if self.normalisation == "nfc":
            tokenizer.normalizer = normalizers.NFC()  # type: ignore[bad-assignment]
        steps = self._parted()
        cut = pre_tokenizers.FixedLength(length=self.longest)
        tokenizer.pre_tokenizer = _one([*steps, cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        wanted = self.size - len(self.marks)
        trainer = trainers.BpeTrainer(
            vocab_size=wanted, min_frequency=self.minimum_count, initial_alphabet=ALPHABET, special_tokens=[], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.pre_tokenizer = _one([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[bad-assignment]
        if (found := tokenizer.get_vocab_size()) < wanted:
            say(f"no more pairs occur {self.minimum_count} times: {found + len(self.marks):,} tokens instead of {self.size:,}")
        return tokenizer

    def _parted(self) -> list[pre_tokenizers.PreTokenizer]:
        digits = [pre_tokenizers.Digits(individual_digits=True)] if self.split_digits else []
        return [*digits, pre_tokenizers.Split(Regex(PATTERNS.get(self.pattern, self.pattern)), "isolated")]


def _one(steps: list[pre_tokenizers.PreTokenizer]) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(steps)  # type: ignore[bad-return]
