"""Is it the same? Fingerprints of settings, files, folders of weights, and of a whole stage."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from etude.errors import LineageError

ARITHMETIC = 1
"""Raised when the same recipe on the same data begins to give other weights, also because a key got another default: every stage is
then run again."""

INDIFFERENT = (
    *("checkpoint_every", "keep_checkpoints", "trackers", "evaluate_every", "samples"),
    *("tokens_per_row", "activation_checkpointing", "compile"),
)
"""Keys of a stage's `train` that cannot change its result, or only the last bits of it, as the number of threads does."""

CONTENT = re.compile(
    r".*\.safetensors|.*\.safetensors\.index\.json"  # weights, a whole model's or an adapter's
    r"|(config|adapter_config|adaptation|quantisation|head)\.json"  # what they are weights of
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|tekken|emoji)\.json|(vocab|merges)\.txt|.*\.(model|tiktoken)"
    r"|chat_template\.(jinja|json)"
)
"""The files that are read and decide what a model is: weights, configuration, tokenizer, template. No reports, code, pickles or journals;
nor how it is usually sampled (`generation_config.json`), which is said whenever it is read."""

TEMPLATES = "additional_chat_templates"
"""The one subfolder that transformers reads with a model: its named chat templates."""

RECORD = "etude.json"
"""The record's file name; it is about a folder's content, no part of it."""


class HashCache(Protocol):
    """Remembers the hash of a file as long as its path, size, time and inode stay."""

    def known_hash(self, path: Path) -> str | None: ...

    def remember_hash(self, path: Path, before: os.stat_result, sha256: str) -> None: ...


def _unserialisable(value: Any, at: str) -> str | None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{at}: key {key!r} is not a string"
            if problem := _unserialisable(item, f"{at}.{key}"):
                return problem
        return None
    if isinstance(value, (list, tuple)):
        return next((p for i, item in enumerate(value) if (p := _unserialisable(item, f"{at}[{i}]"))), None)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{at}: {value} has no place in JSON"
    if value is None or isinstance(value, (bool, int, float, str)):
        return None
    return f"{at}: {type(value).__name__} cannot be written as JSON"


def canonical(value: Mapping[str, Any], what: str = "value") -> str:
    """The one JSON text of a mapping: sorted keys, no spaces, tuples as lists, strict.

    Raises:
        LineageError: a value or key that JSON cannot hold; the message gives its path below `what`.
    """
    if problem := _unserialisable(value, what):
        raise LineageError(problem, "use only mappings with string keys, lists, strings, finite numbers, booleans and null")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(mapping: Mapping[str, Any]) -> str:
    """sha256 (64 hexadecimal digits) of the mapping's canonical JSON; the order of keys does not matter.

    Raises:
        LineageError: a value that JSON cannot hold, with its path.
    """
    return hashlib.sha256(canonical(mapping).encode("ascii")).hexdigest()


def fingerprint_file(path: Path, cache: HashCache | None = None) -> str:
    """sha256 of a file's bytes, read in pieces; `cache` answers for a file that has not changed."""
    if cache and (known := cache.known_hash(path)):
        return known
    before = path.stat()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if cache:
        cache.remember_hash(path, before, found)
    return found


def decides(path: str) -> bool:
    """Whether a file, by its path in a model's folder, is part of what the model is."""
    folder, _, name = path.rpartition("/")
    return name.endswith(".jinja") if folder == TEMPLATES else not folder and CONTENT.fullmatch(name) is not None


def content_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that decide what it is, by their path in it, sorted."""
    inside = sorted([*folder.iterdir(), *(folder / TEMPLATES).glob("*")])
    return {path: p for p in inside if decides(path := p.relative_to(folder).as_posix()) and p.is_file()}


def fingerprint_folder(path: Path, cache: HashCache | None = None) -> str:
    """The fingerprint of a model by content: a folder's weights and configuration under their names, or one file.

    Raises:
        LineageError: nothing there, or a folder without weights or configuration.
    """
    if path.is_file():
        return fingerprint_file(path, cache)
    files = content_files(path) if path.is_dir() else {}
    if not files:
        raise LineageError(f"{path}: no weights or configuration there", "give a model folder in Hugging Face layout, or a .gguf file")
    return fingerprint({name: fingerprint_file(file, cache) for name, file in files.items()})


def stage_identity(parent: str, data: str, section: Mapping[str, Any]) -> str:
    """What makes a stage the same stage: equal identities give equal weights, so it need not run again.

    Args:
        parent: fingerprint of what it starts from (so the parent's name in the recipe does not matter).
        data: fingerprint of what it reads (so the places where that lies do not matter).
        section: the stage's part of the recipe, best without what has its default: then a key that is new, or a default that is
            written out, does not make it another stage. Keys that cannot change the result are left out here.
    """
    train = section.get("train", {})
    stops = train.get("early_stopping") is not None  # then looks decide, and how often there are any
    indifferent = [key for key in INDIFFERENT if not (stops and key == "evaluate_every")]
    train = {key: value for key, value in train.items() if key not in indifferent}
    read = section.get("data", {})
    places = {key: _without_paths(read[key]) for key in ("sources", "held_out", "replay") if key in read}
    rest = {key: value for key, value in section.items() if key not in ("parent", "data", "train")}
    stage = {**rest, "data": {**read, **places}, "train": train}
    return fingerprint({"arithmetic": ARITHMETIC, "parent": parent, "data": data, "stage": stage})


def _without_paths(value: Any) -> Any:
    """A source, or a list of them, without the places; a share or a number of rows as it is."""
    if isinstance(value, Mapping):
        return {key: _without_paths(item) if key == "source" else item for key, item in value.items() if key != "path"}
    return [_without_paths(item) for item in value] if isinstance(value, (list, tuple)) else value
