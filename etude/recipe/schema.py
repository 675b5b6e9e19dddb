"""What a recipe can say. Every key is here, with its meaning, its unit and its default."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from etude.recipe.strict import Leaf, Strict, one_of


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

    path: str
    """A file, a folder, a glob, `package:module/file` (a file inside an installed Python package) or `hub:owner/name`."""
    format: Literal["auto", "messages", "sharegpt", "preference", "kto", "alpaca", "prompt-completion", "text"] = "auto"
    """How to read a row; `auto` decides by the columns and says what it decided."""
    columns: dict[str, str] = {}
    """Renames columns before anything else reads them: `{theirs: ours}`."""
    where: str | None = None
    """A Jinja expression over the row's columns; rows for which it is false are left out and counted."""
    render: Render | None = None
    """Templates that replace the format: for tables with columns of their own."""
    weight: PositiveFloat = 1.0
    """Share of this source in the mixture, relative to the others'."""
    limit: PositiveInt | None = None
    """Take at most this many rows, chosen by the seed."""
    split: str = "train"
    """Split of a hub data set."""


def _as_source(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _as_sources(value: object) -> object:
    if isinstance(value, (str, dict, Source)):
        return [_as_source(value)]
    return [_as_source(v) for v in value] if isinstance(value, (list, tuple)) else value


class Data(Strict):
    """What a stage reads."""

    sources: Annotated[list[Source], BeforeValidator(_as_sources), Field(min_length=1)]
    """One source or a list of them; a plain path will do."""
    held_out: Annotated[float | PositiveInt | Source, BeforeValidator(_as_source)] = 0.05
    """Rows kept for judging and never trained on: a share below 1, a number of rows, or a source of their own."""
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

    @model_validator(mode="after")
    def _held_out(self) -> "Data":
        if isinstance(self.held_out, float) and not 0 <= self.held_out < 1:
            raise ValueError("held_out as a share must be at least 0 and below 1; whole numbers are counts of rows")
        return self


class Train(Strict):
    """How a stage learns."""

    steps: PositiveInt | None = None
    """Optimizer steps; without it, `epochs` decides."""
    epochs: PositiveFloat = 1.0
    """Passes over the training rows, where `steps` is not given."""
    examples_per_step: PositiveInt = 16
    """Rows of data in one optimizer step, over all processes."""
    tokens_per_row: PositiveInt = 4096
    """Tokens computed at once; a larger step is cut into several rows, whose gradients are summed exactly."""
    learning_rate: PositiveFloat | None = None
    """Peak rate; by default 2e-4 for a LoRA and 1e-5 for full tuning."""
    schedule: one_of("schedule") = "cosine"  # type: ignore[valid-type]
    """How the rate moves: constant, linear, cosine, warmup-stable-decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of matrices towards zero; never of biases and norms."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second moment."""
    epsilon: PositiveFloat = 1e-8
    """AdamW's denominator."""
    clip: PositiveFloat | None = 1.0
    """Largest gradient norm; null leaves gradients as they are."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; `auto` takes bfloat16 where the device has kernels for it. What is trained keeps float32 masters either way."""
    compile: bool = False
    """torch.compile for each block: worth its start-up on a GPU, rarely on a CPU."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    seed: int = 0
    """Of the order, the split and the initial adapter."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """How many to keep; older ones are removed once a newer one is whole."""
    evaluate_every: PositiveInt | None = None
    """Steps between looks at the held-out loss; by default only at the start and the end."""
    trackers: list[one_of("tracker")] = []  # type: ignore[valid-type]
    """Where metrics go besides the JSONL file that is always written."""


class Stage(Strict):
    """One stage of life: from a parent, on data, changing some parameters, towards a goal."""

    parent: str = "base"
    """`base`, another stage of this recipe, or an artefact `name` or `name@version`."""
    data: Data
    """What it reads."""
    adapt: one_of("adaptation") = Field(default="lora", validate_default=True)  # type: ignore[valid-type]
    """Which parameters may change."""
    objective: one_of("objective") = Field(default="next-token", validate_default=True)  # type: ignore[valid-type]
    """What counts as good."""
    train: Train = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """How it learns."""


class Keep(Strict):
    """General text on which the tuned model should still be what its base was."""

    source: Annotated[Source | None, BeforeValidator(_as_source)] = None
    """The text; by default what is installed with Python, read when the run judges."""
    tokens: PositiveInt = 4096
    """How many tokens of it are scored."""


class Evaluate(Strict):
    """How a stage's result is judged against its parent, on the same rows."""

    rows: PositiveInt = 200
    """Held-out rows that are answered by both."""
    generate: bool = True
    """Write answers and compare them with the expected ones; without it only likelihoods are compared."""
    max_new_tokens: PositiveInt = 64
    """Longest answer."""
    metrics: list[one_of("metric")] | None = None  # type: ignore[valid-type]
    """What is counted in an answer; by default chosen from the held-out answers, and said."""
    keep: Keep | None = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """What must not be lost; null leaves it unmeasured."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of every interval."""


class Recipe(Strict):
    """One file: a base, the stages of its life, and how they are judged."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "run"
    """Of the run; artefacts are called `name-stage`, or `name` where there is one stage."""
    base: str
    """A hub id, a folder, a `.gguf` file, `package:module/file.gguf`, or an artefact of this project."""
    stages: Annotated[dict[str, Stage], Field(min_length=1)]
    """By name, in any order; parents come first."""
    evaluate: Evaluate | None = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """How results are judged; null trains without judging."""

    @model_validator(mode="after")
    def _a_tree(self) -> "Recipe":
        for name in self.stages:
            seen, at = [name], name
            while (at := self.stages[at].parent) in self.stages:
                if at in seen:
                    raise ValueError(f"stages go in a circle: {' → '.join([*seen, at])}")
                seen.append(at)
        return self


__all__ = ["Data", "Evaluate", "Keep", "Leaf", "Recipe", "Render", "Source", "Stage", "Strict", "Train"]
