"""What is a kind of tokenizer? Something that learns from texts which pieces it writes them in; marks and template are the same for all."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain

from pydantic import model_validator
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from etude.errors import DataError
from etude.model.vocabulary.turns import CHATML_MARKS, check_template, template
from etude.recipe.strict import Leaf

UNKNOWN = "<unk>"
"""Stands for what a vocabulary cannot write, where it has no bytes to fall back on."""

Say = Callable[[str], None]


class Vocabulary(Leaf):
    """Options that every kind has. Marks come behind the pieces, so that the ids of pieces do not depend on which marks there are."""

    end: str = "<|endoftext|>"
    """Ends a document, and an answer where there is no chat template."""
    padding: str | None = "<|padding|>"
    """Fills rows in other tools (etude pads nothing). Never the end: tools that leave padding out of the loss would leave out the end."""
    beginning: str | None = None
    """Put before every text; by default nothing is."""
    special: list[str] = []
    """Further marks, which are never cut and never made of pieces."""
    chat_template: str | None = None
    """`chatml`, which brings its two marks, or a Jinja template; what ends its turns has to be one of the marks."""

    @model_validator(mode="after")
    def _marks_differ(self) -> "Vocabulary":
        for mark in self.marks:
            if not mark or self.marks.count(mark) > 1:
                raise ValueError(f"the mark {mark!r} is there twice" if mark else "a mark cannot be empty")
        return self

    @property
    def marks(self) -> list[str]:
        """Every special token, in the order of their ids."""
        some = [self.end, self.padding, self.beginning]
        named = [mark for mark in some if mark is not None] + self.special
        chat = CHATML_MARKS if self.chat_template == "chatml" else ()
        return named + [mark for mark in chat if mark not in named]

    @property
    def needs_text(self) -> bool:
        """Whether it depends on texts at all."""
        return True

    @abstractmethod
    def pieces(self, texts: Iterator[str], say: Say) -> Tokenizer:
        """A tokenizer without marks.

        Args:
            texts: read once; at least one, unless `needs_text` is false.
            say: told what the texts hold that the vocabulary does not.
        """

    def learn(self, texts: Iterator[str], say: Say = lambda note: None) -> PreTrainedTokenizerBase:
        """The whole tokenizer: pieces, marks, template. The same texts give the same tokenizer, to the byte.

        Raises:
            DataError: there is no text, or a foreign letter where none is to be taken.
            ModelError: the chat template cannot be used.
        """
        filled = (text for text in texts if text)
        first = next(filled, None)
        if first is None and self.needs_text:
            raise DataError(f"no text to learn a vocabulary of the kind {self.kind!r} from", "name files that hold text")
        tokenizer = self.pieces(chain([] if first is None else [first], filled), say)
        unknown = UNKNOWN if tokenizer.token_to_id(UNKNOWN) is not None else None
        tokenizer.add_special_tokens(self.marks)
        if self.beginning is not None:
            place = (self.beginning, tokenizer.token_to_id(self.beginning))
            tokenizer.post_processor = TemplateProcessing(single=f"{self.beginning}:0 $A:0", special_tokens=[place])  # type: ignore[bad-assignment]
        made = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token=self.end,
            pad_token=self.padding,
            bos_token=self.beginning,
            unk_token=unknown,
            clean_up_tokenization_spaces=False,
        )
        if self.chat_template is not None:
            made.chat_template = template(self.chat_template)
            check_template(made)
        return made
