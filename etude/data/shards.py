"""How does a tokenised corpus lie on the disk? Flat tokens, document ends, a manifest with hashes; read through a memory map.

    manifest.json              what is here, by which tokenizer, and where it came from
    train-00000.tokens         uint16 or uint32, little endian, one document after the other
    train-00000.offsets        int64, little endian: where each document ends, in tokens of this shard
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from etude.core.sample import Sample
from etude.errors import DataError
from etude.lineage.durable import write_file

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
MANIFEST = "manifest.json"
FORMAT = "etude-shards-1"
_AGAIN = "prepare the corpus again, or fetch the folder again"
OPEN = 64
"""Shards of a split that are mapped at once, two files each: a process may hold only so many open."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One pair of files, as the manifest describes it."""

    name: str
    """Of both files, without their endings."""
    documents: int
    tokens: int
    sha256: str
    """Of `NAME.tokens`."""
    offsets_sha256: str
    """Of `NAME.offsets`."""


class Documents(Sequence[np.ndarray]):
    """The documents of one split, in the order in which they were prepared."""

    def __init__(self, folder: Path, shards: Sequence[Shard], dtype: np.dtype):
        self.shards, self._folder, self._dtype = tuple(shards), folder, dtype
        self._first = np.cumsum([0, *(shard.documents for shard in shards)])
        self._open: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        """The last used behind the others."""

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        """[L] int32: the tokens of a document, its marks included."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        shard = int(np.searchsorted(self._first, at, side="right")) - 1
        tokens, ends = self._mapped(shard)
        inside = at - int(self._first[shard])
        start = int(ends[inside - 1]) if inside else 0
        return np.asarray(tokens[start : int(ends[inside])], np.int32)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[documents] int64: tokens of each document, without reading them."""
        parts = [np.diff(self._mapped(shard)[1], prepend=0) for shard in range(len(self.shards))]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def tokens(self) -> int:
        """Of all documents together."""
        return sum(shard.tokens for shard in self.shards)

    def sample(self, index: int) -> Sample:
        """A document to learn from: every token but the first, which nothing predicts."""
        tokens = self[index]
        weight = np.ones(len(tokens), np.float32)
        weight[0] = 0
        return Sample(tokens, weight)

    def _mapped(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        if shard not in self._open:
            while len(self._open) >= OPEN:
                self._open.popitem(last=False)
            path = self._folder / self.shards[shard].name
            tokens = np.memmap(path.with_suffix(".tokens"), dtype=self._dtype, mode="r")
            self._open[shard] = (tokens, np.memmap(path.with_suffix(".offsets"), dtype="<i8", mode="r"))
        self._open.move_to_end(shard)
        return self._open[shard]


class Shards(Sequence[np.ndarray]):
    """A prepared corpus. As a sequence it is its training documents; `documents` gives either split."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        self._splits = {split: Documents(folder, [Shard(**one) for one in manifest["shards"][split]], dtype) for split in SPLITS}

    @classmethod
    def open(cls, folder: Path | str) -> "Shards":
        """The corpus in `folder`. Sizes are compared with the manifest; `verify` reads every byte.

        Raises:
            DataError: there is none, a file is missing, or has another size than the manifest says.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: no prepared corpus: {error}", "make one with `etude corpus prepare`") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(f"{folder}/{MANIFEST}: not a manifest of {FORMAT}", _AGAIN)
        try:
            shards = cls(folder, manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder}/{MANIFEST}: damaged: {type(error).__name__}: {error}", _AGAIN) from error
        for path, size, _ in shards._files():
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                raise DataError(f"{path}: {'is missing' if found is None else f'{found:,} bytes'} where {size:,} are recorded", _AGAIN)
        return shards

    def documents(self, split: Split = "train") -> Documents:
        """The documents of one split."""
        return self._splits[split]

    def __len__(self) -> int:
        return len(self.documents())

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        return self.documents()[index]

    @property
    def tokenizer_hash(self) -> str:
        """sha256 of the tokenizer (`tokenizer_hash`): the tokens mean nothing under another one."""
        return self.manifest["tokenizer"]["sha256"]

    def check_tokenizer(self, tokenizer: Any) -> None:
        """DataError where `tokenizer` is another one than the corpus was prepared with: its tokens would be other words."""
        if (other := tokenizer_hash(tokenizer)) != self.tokenizer_hash:
            reference = self.manifest["tokenizer"].get("reference")
            made = f"tokenised by {reference or 'a tokenizer'} ({self.tokenizer_hash[:12]}…)"
            remedy = "take a model with that tokenizer, or prepare the corpus again with this model's"
            raise DataError(f"{self.folder}: the corpus is {made}, the model's tokenizer is another one ({other[:12]}…)", remedy)

    def verify(self) -> None:
        """Read every byte and compare it with the manifest. DataError names the first file that differs."""
        for path, _, sha256 in self._files():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise DataError(f"{path}: its content is not what the manifest records", _AGAIN)

    def _files(self) -> Iterator[tuple[Path, int, str]]:
        """Each file with its size in bytes and its sha256."""
        width = np.dtype(self.manifest["dtype"]).itemsize
        for split in SPLITS:
            for shard in self.documents(split).shards:
                yield self.folder / f"{shard.name}.tokens", shard.tokens * width, shard.sha256
                yield self.folder / f"{shard.name}.offsets", shard.documents * 8, shard.offsets_sha256


class ShardWriter:
    """Writes documents into shards of about `tokens_per_shard`; a document is never cut.

    Args:
        folder: where to; it exists, and holds no shards.
        vocabulary: every token is below it; up to 65,536 they take two bytes each.
    """

    def __init__(self, folder: Path, vocabulary: int, tokens_per_shard: int):
        self.folder, self.tokens_per_shard = folder, tokens_per_shard
        self.dtype = np.dtype("<u2" if vocabulary <= 2**16 else "<u4")
        self.written: dict[Split, list[Shard]] = {split: [] for split in SPLITS}
        self._parts: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        self._lengths: dict[Split, list[int]] = {split: [] for split in SPLITS}
        self._held: dict[Split, int] = dict.fromkeys(SPLITS, 0)

    def add(self, split: Split, tokens: np.ndarray) -> None:
        """One document's tokens."""
        self._parts[split].append(tokens.astype(self.dtype))
        self._lengths[split].append(len(tokens))
        self._held[split] += len(tokens)
        if self._held[split] >= self.tokens_per_shard:
            self._flush(split)

    def extend(self, split: Split, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Many documents at once: their tokens one after the other, and how many belong to each."""
        for end, length in zip(np.cumsum(lengths).tolist(), lengths.tolist()):
            self.add(split, tokens[end - length : end])

    def finish(self, tokenizer: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Write what is left, then the manifest, which is returned; `more` goes into it."""
        for split in SPLITS:
            self._flush(split)
        shards = {split: [{name: getattr(one, name) for name in Shard.__slots__} for one in self.written[split]] for split in SPLITS}
        totals = {
            split: {"documents": sum(one.documents for one in ones), "tokens": sum(one.tokens for one in ones)}
            for split, ones in self.written.items()
        }
        dtype = "uint16" if self.dtype.itemsize == 2 else "uint32"
        manifest = {"format": FORMAT, "dtype": dtype, "tokenizer": tokenizer, "totals": totals, "shards": shards, **more}
        write_file(self.folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        return manifest

    def _flush(self, split: Split) -> None:
        if not self._lengths[split]:
            return
        name = f"{split}-{len(self.written[split]):05d}"
        tokens, ends = np.concatenate(self._parts[split]), np.cumsum(self._lengths[split], dtype="<i8")
        tokens.tofile(self.folder / f"{name}.tokens")
        ends.tofile(self.folder / f"{name}.offsets")
        hashes = (hashlib.sha256(tokens.data).hexdigest(), hashlib.sha256(ends.data).hexdigest())
        self.written[split].append(Shard(name, len(ends), len(tokens), *hashes))
        self._parts[split], self._lengths[split], self._held[split] = [], [], 0


def tokenizer_hash(tokenizer: Any) -> str:
    """sha256 of all that decides how a Hugging Face tokenizer writes text as tokens; not of its template, padding or truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        said: Any = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        said = {key: value for key, value in json.loads(backend.to_str()).items() if key not in ("version", "padding", "truncation")}
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
