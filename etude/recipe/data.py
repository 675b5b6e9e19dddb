"""What a recipe can say of data: where rows come from, how they are read, which are held out, what is learnt again."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, GetJsonSchemaHandler, PositiveFloat, PositiveInt, Tag, model_validator
from pydantic_core import CoreSchema

from etude.recipe.strict import FileText, OneOrMany, Strict


class Render(Strict):
    """Jinja templates that make a row of any table into something to learn from; the row's columns are the variables."""

    system: str | None = None
    """System message."""
    prompt: str | None = None
    """What the user says, or what stands before the completion."""
    completion: str | None = None
    """What the model should answer."""
    chosen: str | None = None
    """The preferred answer, for preference objectives."""
    rejected: str | None = None
    """The answer that lost."""
    text: str | None = None
    """Raw text, where there are no turns."""

    @model_validator(mode="after")
    def _whole(self) -> "Render":
        pair = self.chosen is not None and self.rejected is not None
        if self.text is None and not (self.prompt is not None and (self.completion is not None or pair)):
            raise ValueError("needs `text`, or `prompt` with `completion`, or `prompt` with `chosen` and `rejected`")
        return self


class Source(Strict):
    """Where rows come from."""

    short: ClassVar[str] = "path"
    path: FileText
    """A file, a folder, a glob, a URL, `package:module/file` (in a Python package), `python:library`, `hub:owner/name`, or
    `corpus:NAME` (or `corpus:NAME@VERSION`): a corpus that `etude corpus prepare` made in this project, for stages."""
    format: Literal["auto", "messages", "sharegpt", "preference", "kto", "alpaca", "prompt-completion", "labelled", "text"] = "auto"
    """How to read a row; `auto` decides by the columns and says what it decided."""
    columns: dict[str, str] = {}
    """Renames columns before anything else reads them: `{theirs: ours}`."""
    where: str | None = None
    """A Jinja expression over the row's columns; rows for which it is false are left out and counted."""
    render: Render | None = None
    """Templates that replace the format: for tables with columns of their own."""
    weight: PositiveFloat | None = None
    """Share of this source in the mixture, relative to the others'; by default each counts as many rows as it has."""
    loss_weight: PositiveFloat = 1.0
    """How much each learnt token of this source counts in the loss, beside the others' 1; `weight` is how often its rows come."""
    limit: PositiveInt | None = None
    """Take at most this many rows, chosen by the seed."""
    split: str = "train"
    """Split of a hub data set; of a corpus `train` or `held_out`."""


def _kind_of_held_out(value: object) -> str | None:
    if isinstance(value, (str, dict, Source)):
        return "source"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return "count" if isinstance(value, int) and value else "share"


HeldOut = Annotated[
    Annotated[float, Field(ge=0, lt=1), Tag("share")] | Annotated[PositiveInt, Tag("count")] | Annotated[Source, Tag("source")],
    Discriminator(
        _kind_of_held_out,
        custom_error_type="held_out",
        custom_error_message="should be a share below 1, a whole number of rows, or a source of its own",
    ),
]


class Replay(Strict):
    """Rows that are learnt again beside the task, so that they are not forgotten; a bare number is the share."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of all rows drawn, exactly: 0.1 is every tenth. `examples_per_step` counts them, `epochs` does not."""
    source: Source | None = None
    """What is learnt again: rows as this objective reads them. By default the general text that is installed with Python. What shares 16
    tokens in a row with a passage of `evaluate.keep`, or repeats a held-out row, is left out and counted."""
    answers: bool = False
    """Let the parent itself answer the rows' prompts, the likeliest token every time, before anything is learnt, and learn its answers
    again: of `source`, or without one of the training rows."""
    max_new_tokens: PositiveInt = 128
    """Longest of these answers."""

    @model_validator(mode="before")
    @classmethod
    def _from_share(cls, value: object) -> object:
        return {"share": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, handler(core)]}


class Data(Strict):
    """What a stage reads."""

    sources: Annotated[list[Source], Field(min_length=1), OneOrMany()]
    """One source or a list of them; a plain path will do."""
    held_out: HeldOut = 0.05
    """Rows kept for judging and never trained on: a share below 1, a number of rows, or a source of their own. Where all sources are
    corpora, the default is what these hold out themselves."""
    replay: Replay | None = None
    """General text or rows of your own mixed in against forgetting, for objectives that learn tokens: `replay: 0.1`."""
    context: PositiveInt = 1024
    """Longest path in tokens."""
    too_long: Literal["drop", "truncate", "error"] = "drop"
    """What happens to a longer one: left out; cut from the front, turn by turn, never inside an answer; or a stop. Always counted."""
    bad_rows: Literal["error", "drop"] = "error"
    """A row that cannot be used stops the run with its number, or is left out and counted."""
    minimum_shared: PositiveInt = 16
    """Beginnings shorter than this many tokens are not shared: the bookkeeping would cost more."""
    train_on: Literal["answers", "last-answer", "everything"] = "answers"
    """Which part of a conversation is learnt: every assistant turn, only the last one, or every token."""
