"""How well does a tokenizer write texts? Bytes a token, and whether the texts come back."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class Written:
    """Sums over texts."""

    texts: int = 0
    bytes: int = 0
    """Of the texts, in UTF-8."""
    tokens: int = 0
    """Without what a tokenizer puts before or behind a text."""
    unknown: int = 0
    """Tokens that stand for something the vocabulary does not have."""
    changed: int = 0
    """Texts that do not come back as they were."""
    first_changed: tuple[str, str] | None = field(default=None)
    """Of the first of these, what was read and what came back, from a little before the difference."""

    @property
    def bytes_per_token(self) -> float:
        """More is shorter; 0 where there is no text."""
        return self.bytes / self.tokens if self.tokens else 0.0

    def line(self) -> str:
        """In words."""
        said = [f"{self.bytes_per_token:.2f} bytes a token ({self.bytes:,} bytes, {self.tokens:,} tokens)"]
        if self.unknown:
            said.append(f"{self.unknown:,} tokens unknown")
        if self.first_changed is None:
            said.append("every text comes back as it was" if self.texts > 1 else "the text comes back as it was")
        else:
            read, back = self.first_changed
            said.append(f"{self.changed:,} of {self.texts:,} texts do not come back as they were: {read!r} became {back!r}")
        return ", ".join(said)


def written(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Written:
    """Encode and decode each."""
    found = Written()
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        found.texts += 1
        found.bytes += len(text.encode())
        found.tokens += len(ids)
        found.unknown += ids.count(tokenizer.unk_token_id) if _marks_unknown(tokenizer) else 0
        if back != text:
            found.changed += 1
            found.first_changed = found.first_changed or _difference(text, back)
    return found


def _marks_unknown(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Many name an unknown token that they never write, as byte-level ones do; then it is text that was read as a mark."""
    model = tokenizer.backend_tokenizer.model  # type: ignore[missing-attribute]
    return tokenizer.unk_token_id is not None and getattr(model, "unk_token", None) is not None


def _difference(read: str, back: str) -> tuple[str, str]:
    at = next((i for i, (one, other) in enumerate(zip(read, back)) if one != other), min(len(read), len(back)))
    start = max(0, at - 10)
    return read[start : at + 10], back[start : at + 10]
