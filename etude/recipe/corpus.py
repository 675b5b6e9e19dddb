"""What a corpus recipe can say: which text, by which rules, free of which duplicates and questions, in whose tokens."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from etude.recipe.data import Source
from etude.recipe.schema import Name
from etude.recipe.strict import FileText, ModelText, OneOrMany, Strict, one_of


class Near(Strict):
    """Near duplicates by MinHash: documents that agree in all hashes of a bucket are one cluster, of which the first is kept."""

    words: PositiveInt = 5
    """Neighbouring words that make one shingle; documents shorter than this have no near duplicates."""
    buckets: PositiveInt = 14
    """Buckets; more of them find less similar documents."""
    hashes: PositiveInt = 8
    """Hashes in a bucket; more of them ask for more similarity. Half of all pairs are found from about (1/buckets)^(1/hashes) on: 0.72."""
    seed: int = 1
    """Of the hashes."""


class Deduplicate(Strict):
    """Which documents are left out because another one says the same; the first in the order of the sources is kept."""

    exact: bool = True
    """Documents that are the same character by character once the rules have changed them."""
    near: Near | None = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """Documents that are nearly the same; null keeps them."""


class Benchmark(Strict):
    """Questions that must not be in the corpus."""

    short: ClassVar[str] = "path"
    path: FileText
    """A file, a folder, a glob, `package:module/file` or `hub:owner/name`."""
    columns: list[str] = []
    """The columns that hold the question; by default the first of question, prompt, text, input, instruction and query that says something,
    or the first of a row's `messages`."""
    split: str = "test"
    """Split of a hub data set."""


class Overlap(Strict):
    """When does a document hold a question? By words, whatever their case and punctuation."""

    long_questions: PositiveInt = 13
    """Words in a row that are looked for, of questions that have as many (GPT-3's rule)."""
    short_questions: PositiveInt = 8
    """The same of shorter questions; of those that are shorter still, the whole question."""
    shortest: PositiveInt = 4
    """Questions with fewer words are not looked for, because any text may hold them; they are counted."""


class Corpus(Strict):
    """One file: from raw text of any size to clean documents in a tokenizer's tokens."""

    name: Name
    """Of the corpus; each preparation with other inputs or settings is another version of it."""
    sources: Annotated[list[Source], Field(min_length=1), OneOrMany()]
    """One source of raw text or a list of them; a plain path will do, also a URL such as `s3://…`."""
    bad_rows: Literal["error", "drop"] = "error"
    """A row that cannot be used stops the preparation with its number, or is left out and counted."""
    rules: list[one_of("rule")] = Field(default=["normalise"], validate_default=True)  # type: ignore[valid-type]
    """What every document passes, in this order; each rule keeps it, changes it, or rejects it with a reason."""
    deduplicate: Deduplicate = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """Which duplicates are left out."""
    benchmarks: Annotated[list[Benchmark], OneOrMany()] = []
    """Questions whose documents are left out, so that a model can be judged by them."""
    overlap: Overlap = Field(default={}, validate_default=True)  # type: ignore[assignment]
    """How the questions are looked for."""
    tokenizer: ModelText
    """Whose tokens: a folder with a tokenizer, a model's folder, a hub id, a `.gguf` file, or an artefact of this project."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """Share of documents kept apart, chosen by their content alone: one that is held out stays so when the corpus grows."""
    tokens_per_shard: PositiveInt = 100_000_000
    """About so many tokens lie in one file; a document is never cut."""

    @model_validator(mode="after")
    def _whole(self) -> "Corpus":
        for number, source in enumerate(self.sources):
            for key in ("weight", "loss_weight"):
                if getattr(source, key) != Source.model_fields[key].default:
                    where = {"at": ("sources", number, key)}
                    what = "a corpus keeps all of its text; sources are weighed where a stage reads them"
                    raise PydanticCustomError("weight", what, where)
        return self
