"""What a recipe can say. Every key is here, with its meaning, its unit and its default."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from etude.recipe.birth import Base, Newborn, of_newborn
from etude.recipe.data import Data, Source
from etude.recipe.strict import Strict, one_of


class EarlyStopping(Strict):
    """When a run ends before its last step: where a held-out figure gets no better. The best look's weights are what is kept."""

    patience: PositiveInt = 3
    """Looks in a row without a gain; there is one every `evaluate_every` steps."""
    minimum_gain: Annotated[float, Field(ge=0)] = 0.0
    """What a gain must exceed: nats a token or a label of the held-out loss, or the share of held-out pairs or labels that are right."""


class Stability(Strict):
    """What happens where a step is unlike those before it: it is not taken, and several in a row take the run back; `{}` is usual."""

    window: Annotated[int, Field(ge=4)] = 32
    """Steps whose losses and gradient norms say what is usual; until half of them are there only what is not finite is refused."""
    threshold: PositiveFloat = 10.0
    """How many times as far above the median as values usually scatter a spike is."""
    skips: Annotated[int, Field(ge=0)] = 2
    """Spikes in a row that are only passed by; the next takes the run back to its last checkpoint, without the rows of these steps."""
    roll_backs: PositiveInt = 3
    """How often the run goes back before it stops with an error."""


class Placement(Strict):
    """Where a model lies while it learns; none of it changes what is learnt."""

    stream: Literal["disk", "host"] | None = None
    """Where a frozen base lies that is larger than the device's memory: one block at a time comes from there, forward and backward. On a
    processor take `disk`."""


_INSTEAD = (("tokens", "epochs", "when the stage ends"), ("tokens_per_step", "examples_per_step", "how large a step is"))
"""Keys of `Train` of which the first, where it is given, decides what the second says elsewhere."""


class Train(Strict):
    """How a stage learns."""

    steps: PositiveInt | None = None
    """Optimizer steps; without it, `epochs` decides."""
    epochs: PositiveFloat = 1.0
    """Passes over the training rows, where `steps` is not given."""
    tokens: PositiveInt | None = None
    """Tokens to learn from in all, as if nothing were shared: an end in place of `steps` and `epochs`; needs `tokens_per_step`."""
    examples_per_step: PositiveInt = 16
    """Rows of data in one optimizer step, over all processes."""
    tokens_per_step: PositiveInt | None = None
    """Instead: tokens in one optimizer step, as near as whole examples (documents, or pieces of long ones) come to it."""
    tokens_per_row: PositiveInt = 2048
    """Tokens computed at once; a larger step is cut into several rows, whose gradients are summed exactly."""
    learning_rate: PositiveFloat | None = None
    """Peak rate; by default 2e-4 for a LoRA, 1e-5 for full tuning, 1e-3 for a newborn model."""
    rates: dict[str, PositiveFloat] = {}
    """By what the rate is multiplied for parameters whose names fit a pattern, such as `"*lora_B*": 16`."""
    schedule: one_of("schedule", "cosine") = Field(default="cosine", validate_default=True)  # type: ignore[valid-type]
    """How the rate moves: constant, linear, cosine, warmup-stable-decay."""
    optimizer: one_of("optimizer", "adamw") = Field(default="adamw", validate_default=True)  # type: ignore[valid-type]
    """What steps: adamw, or muon for the matrices between layers with AdamW for the rest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of matrices towards zero; never of biases and norms."""
    decay_to: Literal["zero", "parent"] = "zero"
    """Where `weight_decay` pulls: matrices to zero, or all that changes to what it was in the parent, norms and biases too
    (L2-SP, https://arxiv.org/abs/1802.01483, taken off the weights as AdamW takes its decay). A LoRA's factors go to zero either way,
    where they say nothing beside the parent; virtual tokens have no such place. Needs a copy of what it pulls to."""
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
    placement: Placement = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """Where the model lies."""
    seed: int = 0
    """Of the order, the split and the initial adapter."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """How many to keep; older ones are removed once a newer one is whole."""
    evaluate_every: PositiveInt | None = None
    """Steps between looks at the held-out rows: their loss, or of pairs the share preferred. By default only at the start and the end."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Average the weights over the steps: after each the average keeps this share of itself, such as 0.999 (less in the first steps), and
    takes the rest from the weights. Looks see the average, and it is judged and saved; training goes on with the weights. Needs a copy."""
    early_stopping: EarlyStopping | None = None
    """Stop where held-out rows gain nothing more, and keep the best weights, of which a copy is held; `{}` takes the defaults. Half of the
    held-out rows (200 at most) are looked at, and then not judged: what chose the weights cannot say how good they are."""
    samples: list[str] = []
    """Texts that the model goes on from at every look at the held-out rows (`evaluate_every`); shown and kept in the report."""
    stability: Stability | None = None
    """Guard against spikes of the loss and the gradient norm; without it only a gradient that is not finite is refused."""
    trackers: list[one_of("tracker")] = []  # type: ignore[valid-type]
    """Where metrics go besides the JSONL file that is always written."""

    @model_validator(mode="after")
    def _whole(self) -> "Train":
        if self.decay_to == "parent" and not self.weight_decay:
            raise ValueError("`decay_to: parent` pulls by `weight_decay`, which is 0: set it, such as to 0.01")
        if self.early_stopping is not None and self.evaluate_every is None:
            raise ValueError("`early_stopping` looks at held-out rows every `evaluate_every` steps: set that, such as to 10")
        if self.tokens is not None and self.tokens_per_step is None:
            raise ValueError("`tokens` needs `tokens_per_step`: how many of them make one step")
        if self.tokens is not None and self.steps is not None:
            raise ValueError("`tokens` and `steps` both say when the stage ends: keep one of them")
        for one, other, what in _INSTEAD:
            if getattr(self, one) is not None and getattr(self, other) != type(self).model_fields[other].default:
                raise ValueError(f"`{one}` says {what} (a newborn's `compute` sets it), and `{other}` would be ignored: leave one out")
        return self


class Stage(Strict):
    """One stage of life: from a parent, on data, changing some parameters, towards a goal."""

    parent: str = "base"
    """`base`, another stage of this recipe, or an artefact `name` or `name@version`."""
    data: Data
    """What it reads."""
    adapt: one_of("adaptation", "lora") = Field(default="lora", validate_default=True)  # type: ignore[valid-type]
    """Which parameters may change."""
    objective: one_of("objective", "next-token") = Field(default="next-token", validate_default=True)  # type: ignore[valid-type]
    """What counts as good."""
    train: Train = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """How it learns."""


class Keep(Strict):
    """General text on which the tuned model should still be what its parent was; what earlier stages lost is added from their records."""

    source: Source | None = None
    """The text; by default what is installed with Python, read when the run judges."""
    tokens: PositiveInt = 4096
    """How many tokens of it are scored."""
    margin: PositiveFloat = 0.05
    """Nats per token that count as unchanged; a larger loss, here or since the base in all, is a warning beside the verdict."""


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


def _not_base(name: str) -> str:
    if name == "base":
        raise PydanticCustomError("reserved", "no stage can be called `base`: that is what `parent: base` means")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
StageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$"), AfterValidator(_not_base)]


class Recipe(Strict):
    """One file: a base, the stages of its life, and how they are judged."""

    name: Name = "run"
    """Of the run; artefacts are called `name-stage`, or `name` where there is one stage."""
    base: Base
    """A hub id, a folder, a `.gguf` file, `package:module/file.gguf`, an artefact of this project, or a model to be born."""
    stages: Annotated[dict[StageName, Stage], Field(min_length=1)]
    """By name, in any order; parents come first."""
    evaluate: Evaluate | None = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """How results are judged; null trains without judging."""

    @model_validator(mode="before")
    @classmethod
    def _on_newborn(cls, value: Any) -> Any:
        return of_newborn(value)

    @model_validator(mode="after")
    def _all_of_a_newborn(self) -> "Recipe":
        for name, stage in self.stages.items():
            if isinstance(self.base, Newborn) and stage.parent == "base" and stage.adapt.kind != "full":
                where = {"kind": stage.adapt.kind, "at": ("stages", name, "adapt")}
                raise PydanticCustomError("newborn", "{kind} would leave most weights of a newborn model random: take `full`", where)
        return self

    @model_validator(mode="after")
    def _a_tree(self) -> "Recipe":
        for name in self.stages:
            seen, at = [name], name
            while (at := self.stages[at].parent) in self.stages:
                if at in seen:
                    circle = {"circle": " → ".join([*seen, at]), "at": ("stages", seen[-1], "parent")}
                    raise PydanticCustomError("circle", "stages go in a circle: {circle}", circle)
                seen.append(at)
        return self

