"""How does this tokenizer write text as tokens, and what are its marks: what it puts first, what ends a text, what stops an answer?"""

from collections.abc import Iterable
from typing import Any

from etude.core.sample import Example
from etude.errors import DataError


class Encoder:
    """A tokenizer with a memory for the texts of one batch of rows, which are encoded together.

    Args:
        tokenizer: a Hugging Face tokenizer.
        stop_ids: tokens at which generation stops; every supervised answer ends with one.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]):
        if not stop_ids:
            raise DataError("no stop token is known for this model", "set `eos_token_id` in its generation_config.json")
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.end: int | None = tokenizer.eos_token_id
        """End of text: put after raw text and after plain completions."""
        self.beginning: int | None = tokenizer.bos_token_id
        plain, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self.lead: list[int] = list(whole[:at])
        """What the tokenizer itself puts before a text: nothing, or one beginning-of-text."""
        ids = {i for i in (self.beginning, self.end, *stop_ids) if i is not None}
        names = map(str, tokenizer.convert_ids_to_tokens(sorted(ids)))
        self.marks: tuple[str, ...] = tuple(sorted({name for name in names if len(name) > 1} | turn_marks(tokenizer)))
        """The texts that the tokenizer reads as beginning, end or stop, or that stand around a turn; in a message they would forge one."""
        # Byte-level tokenizers often name an unknown token too, and never write it.
        model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
        self.unknown: int | None = tokenizer.unk_token_id if getattr(model, "unk_token", None) else None
        """Stands for what the tokenizer has no token for."""
        self._known: dict[str, list[int]] = {}

    def warm(self, texts: list[str]) -> None:
        """Encode a batch at once and forget the one before."""
        new = [text for text in dict.fromkeys(texts) if text]
        self._known = dict(zip(new, self.tokenizer(new, add_special_tokens=False)["input_ids"], strict=True)) if new else {}

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, with nothing put before or behind."""
        if text not in self._known:
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return self._known[text]

    def unknown_in(self, examples: Iterable[Example]) -> int:
        """How many tokens stand for something unknown."""
        if self.unknown is None:
            return 0
        return sum(int((sample.tokens == self.unknown).sum()) for example in examples for sample in example.samples)

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones included, spaces as they are."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def names(self, ids: frozenset[int] | list[int]) -> str:
        """Tokens for people: `<|im_end|> (2)`."""
        return ", ".join(f"{name} ({i})" for i, name in ((i, self.tokenizer.convert_ids_to_tokens(i)) for i in sorted(ids)))


def turn_marks(tokenizer: Any) -> set[str]:
    """The special tokens that the chat template writes around every turn, as `<|im_start|>`."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and len(str(token)) > 1}
    if not tokenizer.chat_template:
        return set()
    turns = [{"role": ("user", "assistant")[i % 2], "content": "a"} for i in range(3)]
    try:
        once, more = (tokenizer.apply_chat_template(turns[:count], tokenize=False) for count in (1, 3))
    except Exception:  # noqa: BLE001  a template raises its own refusals; rows will meet them one by one
        return set()
    return {mark for mark in special if more.count(mark) > once.count(mark)}
