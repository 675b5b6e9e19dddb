"""Every character is a token; rare ones are written as bytes, or marked as unknown."""

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import PositiveInt
from tokenizers import Tokenizer, decoders, models, normalizers

from etude.model.vocabulary.contract import UNKNOWN, Say, Vocabulary
from etude.model.vocabulary.foreign import told


class Characters(Vocabulary):
    """The characters that the texts hold, in the order of Unicode. https://arxiv.org/abs/1808.04444"""

    kind: ClassVar[str] = "characters"
    most: PositiveInt | None = None
    """At most so many characters, the most frequent ones; by default all."""
    minimum_count: PositiveInt = 1
    """How often a character must occur to become a token."""
    unknown: Literal["bytes", "mark"] = "bytes"
    """Any other character is written as its bytes in UTF-8 (256 tokens more), or as one `<unk>`, which loses it."""
    normalisation: Literal["none", "nfc"] = "none"
    """`nfc` writes equal characters equally (Unicode's composed form): what is decoded may then differ in bytes from what was read."""

    def pieces(self, texts: Iterator[str], say: Say) -> Tokenizer:
        normaliser = normalizers.NFC() if self.normalisation == "nfc" else None
        found: Counter[str] = Counter()
        for text in texts:
            found.update(normaliser.normalize_str(text) if normaliser else text)
        ranked = sorted(found, key=lambda character: (-found[character], character))
        kept = [character for character in ranked if found[character] >= self.minimum_count][: self.most]
        if left := found.keys() - set(kept):
            become = "are written as bytes" if self.unknown == "bytes" else f"become {UNKNOWN}"
            say(told({character: found[character] for character in left}, found.total(), become))
        others = [f"<0x{byte:02X}>" for byte in range(256)] if self.unknown == "bytes" else [UNKNOWN]
        names = [*sorted(kept), *others]
        falls_back = self.unknown == "bytes"
        model = models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[],
            byte_fallback=falls_back,
            unk_token=None if falls_back else UNKNOWN,
        )
        tokenizer = Tokenizer(model)
        if normaliser:
            tokenizer.normalizer = normaliser  # type: ignore[bad-assignment]
        tokenizer.decoder = decoders.Sequence([*([decoders.ByteFallback()] if falls_back else []), decoders.Fuse()])  # type: ignore[bad-assignment]
        return tokenizer
