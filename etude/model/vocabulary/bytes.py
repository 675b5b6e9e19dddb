"""Every byte is a token: nothing to learn, nothing unknown, long rows."""

from collections.abc import Iterator
from typing import ClassVar

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.model.vocabulary.contract import Say, Vocabulary


class Bytes(Vocabulary):
    """A token for each of the 256 bytes of UTF-8, whose id is the byte. https://arxiv.org/abs/2105.13626 (there with marks before them)"""

    kind: ClassVar[str] = "bytes"

    @property
    def needs_text(self) -> bool:
        return False

    def pieces(self, texts: Iterator[str], say: Say) -> Tokenizer:
        for _ in texts:  # read to its end, so that it is counted
            pass
        tokenizer = Tokenizer(models.BPE(vocab=_by_byte(), merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[bad-assignment]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[bad-assignment]
        return tokenizer


def _by_byte() -> dict[str, int]:
    """Character that stands for a byte → the byte: what can be printed stands for itself, the others follow from 256 on (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
