"""A tokenised corpus on the disk: what is written is read, damage is found, another tokenizer is refused."""

import json

import numpy as np
import pytest
from chat_tokenizers import chat_tokenizer
from few_files import few_files

from etude.data import shards as module
from etude.data.shards import MANIFEST, Shards, ShardWriter, tokenizer_hash
from etude.errors import DataError


def written(folder, documents, held_out=(), vocabulary=700, per_shard=100, tokenizer=None):
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, vocabulary, per_shard)
    for split, ones in (("train", documents), ("held_out", held_out)):
        for tokens in ones:
            writer.add(split, np.asarray(tokens, np.int32))
    writer.finish({"sha256": tokenizer_hash(tokenizer or chat_tokenizer())}, name="made")
    return Shards.open(folder)


def some(count, seed=0, high=700):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, high, generator.integers(1, 60)) for _ in range(count)]


@pytest.mark.parametrize(("vocabulary", "width"), [(700, 2), (2**16, 2), (2**16 + 1, 4)])
def test_what_is_written_is_read(tmp_path, vocabulary, width):
    train, held_out = some(50, high=vocabulary), some(7, 1, vocabulary)
    shards = written(tmp_path / "c", train, held_out, vocabulary)
    assert len(shards) == 50 and len(shards.documents("held_out")) == 7 and len(shards.documents("train").shards) > 3
    assert all((one == other).all() for one, other in zip(shards, train))
    assert (shards[-1] == train[-1]).all() and shards[3].dtype == np.int32 and (shards[2:4][1] == train[3]).all()
    assert shards.documents("train").lengths.tolist() == [len(one) for one in train]
    assert shards.documents("train").tokens == sum(map(len, train))
    first = shards.documents("train").shards[0]
    plain = np.fromfile(tmp_path / "c" / f"{first.name}.tokens", f"<u{width}")
    assert plain.tolist() == np.concatenate(train[: first.documents]).tolist(), "nothing but the tokens"
    sample = shards.documents("held_out").sample(0)
    assert (sample.tokens == held_out[0]).all() and sample.weight.sum() == len(held_out[0]) - 1 and sample.weight[0] == 0
    with pytest.raises(IndexError):
        shards[50]
    shards.verify()


def test_many_shards_need_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 10)
    train = some(100)
    shards = written(tmp_path / "c", train, per_shard=1)
    documents = shards.documents("train")
    assert len(documents.shards) == 100
    with few_files(30):
        assert documents.lengths.tolist() == [len(one) for one in train]
        for at in [*range(100), *np.random.default_rng(0).permutation(100).tolist()]:
            assert (documents[at] == train[at]).all()


def test_damage_is_found(tmp_path):
    written(tmp_path / "c", some(50))
    path = tmp_path / "c" / "train-00001.tokens"
    raw = bytearray(path.read_bytes())
    raw[7] ^= 1
    path.write_bytes(raw)
    shards = Shards.open(tmp_path / "c")
    with pytest.raises(DataError, match=r"train-00001\.tokens: its content is not"):
        shards.verify()
    path.write_bytes(raw[:-2])
    with pytest.raises(DataError, match=r"train-00001\.tokens: .* bytes where"):
        Shards.open(tmp_path / "c")
    path.unlink()
    with pytest.raises(DataError, match=r"train-00001\.tokens: is missing"):
        Shards.open(tmp_path / "c")
    manifest = json.loads((tmp_path / "c" / MANIFEST).read_text())
    del manifest["shards"]["train"][0]["tokens"]
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="damaged"):
        Shards.open(tmp_path / "c")
    with pytest.raises(DataError, match="no prepared corpus"):
        Shards.open(tmp_path)


def test_another_tokenizer_is_refused(tmp_path):
    shards = written(tmp_path / "c", some(3))
    shards.check_tokenizer(chat_tokenizer())
    shards.check_tokenizer(chat_tokenizer(None, eos="</s>"))
    other = chat_tokenizer()
    other.add_tokens(["zebra"])
    with pytest.raises(DataError, match="the model's tokenizer is another one"):
        shards.check_tokenizer(other)
