"""Parts become a corpus: shards, the rejected documents with their reasons, and a manifest that tells the whole way."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.corpus.clean import Samples, part_path
from etude.data.corpus.distinct import Part, parts
from etude.data.corpus.overlap import too_short
from etude.data.corpus.plan import Plan
from etude.data.shards import SPLITS, ShardWriter
from etude.lineage.fingerprint import fingerprint_file

REJECTED = "rejected.jsonl.gz"


def gather(plan: Plan, folder: Path) -> dict[str, Any]:
    """Write the corpus into an empty folder; the manifest, which is written last, is returned."""
    all_parts = parts(plan)
    writer = ShardWriter(folder, plan.writing.vocabulary, plan.recipe.tokens_per_shard)
    with ExitStack() as stack:
        rejected = stack.enter_context((folder / REJECTED).open("wb"))
        hashes = {split: stack.enter_context((folder / f"{split}.hashes").open("wb")) for split in SPLITS}
        for part in all_parts:
            place = part_path(plan.folder, part.name)
            with np.load(place(".npz"), allow_pickle=False) as arrays:
                for split in SPLITS:
                    writer.extend(split, arrays[f"{split}_tokens"], arrays[f"{split}_lengths"])
                    hashes[split].write(arrays[f"{split}_hashes"].astype("<u8").tobytes())
            for ending in (".rejected.gz", ".duplicates.gz"):
                with place(ending).open("rb") as file:
                    shutil.copyfileobj(file, rejected)
    files = {name: fingerprint_file(folder / name) for name in (REJECTED, *(f"{split}.hashes" for split in SPLITS))}
    writing = plan.writing
    tokenizer = {
        "sha256": writing.sha256,
        "reference": writing.reference,
        "vocabulary": writing.vocabulary,
        "lead": list(writing.lead),
        "end": writing.end,
    }
    asked = Counter(question.benchmark for question in plan.questions)
    passed = Counter(question.benchmark for question in plan.questions if too_short(question, plan.recipe.overlap))
    return writer.finish(
        tokenizer,
        name=plan.recipe.name,
        identity=plan.identity,
        recipe=plan.recipe.model_dump(mode="json"),
        versions=plan.versions,
        inputs=list(plan.inputs),
        sources=_sources(plan, all_parts),
        questions={benchmark: count - passed[benchmark] for benchmark, count in asked.items()},
        questions_too_short=dict(passed),
        samples=_samples(plan, all_parts),
        notes=list(plan.notes),
        files=files,
    )


def _sources(plan: Plan, all_parts: list[Part]) -> list[dict[str, Any]]:
    """What became of each source's rows and documents."""
    sources: list[dict[str, Any]] = [{"path": source.path} for source in plan.recipe.sources]
    for number, unit in enumerate(plan.units):
        add(sources[unit.source], _read(plan.folder / "units" / f"{number:06d}.json"), leaving=("parts",))
    for part in all_parts:
        for ending in (".json", ".tokens.json"):
            said = _read(part_path(plan.folder, part.name)(ending))
            add(sources[part.source], said, leaving=("source", "samples"))
    return sources


def add(total: dict[str, Any], more: dict[str, Any], leaving: Iterable[str] = ()) -> None:
    """Add counts to counts: numbers are summed, mappings key by key, lists of mappings one by one, notes are kept once."""
    for key, value in more.items():
        if key in leaving:
            continue
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            held = total.setdefault(key, [])
            if value and isinstance(value[0], dict):
                held += [{} for _ in range(len(value) - len(held))]
                for one, other in zip(held, value):
                    add(one, other)
            else:
                held += [line for line in value if line not in held]
        elif isinstance(value, str):
            total[key] = value
        else:
            total[key] = total.get(key, 0) + value


def _samples(plan: Plan, all_parts: list[Part]) -> list[dict[str, Any]]:
    samples = Samples()
    for part in all_parts:
        for one in _read(part_path(plan.folder, part.name)(".json"))["samples"]:
            samples.add(one["kind"], one["digest"], {key: value for key, value in one.items() if key not in ("kind", "digest")})
    return samples.kept()


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
