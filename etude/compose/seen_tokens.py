"""What does a tokenizer make of a text? In colour for a terminal, as plain values for programs."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from etude.model.tokenizer import stop_tokens
from etude.model.vocabulary.measure import Written, written

_COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")
_MARK = "bold white on red"
_MOST_IDS = 64
_TURNS = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}]


@dataclass(frozen=True, slots=True, eq=False)
class SeenTokens:
    """A text as a tokenizer writes it. `rich` prints it in colour."""

    tokenizer: PreTrainedTokenizerBase
    text: str

    @property
    def ids(self) -> list[int]:
        """The tokens of the text, with nothing put before or behind."""
        return self.tokenizer(self.text, add_special_tokens=False)["input_ids"]

    @property
    def written(self) -> Written:
        """Bytes a token, unknown tokens, and whether the text comes back."""
        return written(self.tokenizer, [self.text])

    @property
    def marks(self) -> dict[int, tuple[str, str]]:
        """Special tokens: id → its text, and what it is for."""
        roles: dict[int, list[str]] = {}
        for role in ("bos", "eos", "pad", "unk"):
            if (token := getattr(self.tokenizer, f"{role}_token_id")) is not None:
                roles.setdefault(token, []).append({"bos": "beginning", "eos": "end", "pad": "padding", "unk": "unknown"}[role])
        added = {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = {i: str(self.tokenizer.convert_ids_to_tokens(i)) for i in roles}
        return {i: (name, ", ".join(roles.get(i, []))) for i, name in sorted((named | added).items())}

    @property
    def conversation(self) -> str | None:
        """A question and an answer as the chat template writes them; None where there is none."""
        if not self.tokenizer.chat_template:
            return None
        return str(self.tokenizer.apply_chat_template(_TURNS, tokenize=False))

    def pieces(self, ids: list[int]) -> list[tuple[str, list[int]]]:
        """Text and its tokens; several tokens together where one alone is no whole character."""
        found: list[tuple[str, list[int]]] = []
        open_: list[int] = []
        for token in ids:
            open_.append(token)
            text = str(self.tokenizer.decode(open_, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            if "\ufffd" not in text or len(open_) == 4:
                found.append((text, open_))
                open_ = []
        return [*found, ("\ufffd", open_)] if open_ else found

    def to_dict(self) -> dict[str, Any]:
        """Everything that is shown."""
        figures = self.written
        return {
            "size": len(self.tokenizer),
            "pieces": [{"text": text, "ids": ids} for text, ids in self.pieces(self.ids)],
            "tokens": figures.tokens,
            "bytes": figures.bytes,
            "bytes_per_token": figures.bytes_per_token,
            "unknown": figures.unknown,
            "comes_back": figures.changed == 0,
            "marks": [{"id": i, "text": text, "for": role} for i, (text, role) in self.marks.items()],
            "conversation": self.conversation,
            "stop": stop_tokens(self.tokenizer, None)[1],
        }

    def __rich__(self) -> RenderableType:
        ids = self.ids
        shown: list[RenderableType] = [self._coloured(ids), Text()]
        more = f" … and {len(ids) - _MOST_IDS:,} more" if len(ids) > _MOST_IDS else ""
        shown.append(Text(f"ids {' '.join(map(str, ids[:_MOST_IDS]))}{more}", style="dim"))
        figures = self.written
        shown.append(Text(figures.line(), style="" if figures.first_changed is None and not figures.unknown else "yellow"))
        shown.append(Text(f"{len(self.tokenizer):,} tokens in all; {stop_tokens(self.tokenizer, None)[1]}"))
        marks = [f"{text} {i}{f' ({role})' if role else ''}" for i, (text, role) in self.marks.items()]
        listed = ", ".join(marks[:12]) + (f" and {len(marks) - 12:,} more" if len(marks) > 12 else "")
        shown.append(Text(f"marks: {listed or 'none'}"))
        if (said := self.conversation) is None:
            shown.append(Text("no chat template"))
        else:
            shown += [Text("chat template:"), self._coloured(self.tokenizer(said, add_special_tokens=False)["input_ids"])]
        return Group(*shown)

    def _coloured(self, ids: list[int]) -> Text:
        """Neighbours in different colours, marks in red; line breaks and tabs are shown as well as made."""
        text, special = Text(), set(self.marks)
        for at, (piece, tokens) in enumerate(self.pieces(ids)):
            visible = piece.replace("\t", "→   ").replace("\r", "␍").replace("\n", "↵\n")
            text.append(visible, style=_MARK if special & set(tokens) else _COLOURS[at % len(_COLOURS)])
        return text
