import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import LineageError
from etude.lineage.fingerprint import fingerprint, fingerprint_folder, stage_identity
from etude.lineage.index import Index

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_the_order_of_keys_does_not_matter(mapping):
    def turned(value):
        return {k: turned(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    assert fingerprint(mapping) == fingerprint(turned(mapping))


def test_known_by_hand():
    assert fingerprint({"b": [1, "é"], "a": None}) == hashlib.sha256(rb'{"a":null,"b":[1,"\u00e9"]}').hexdigest()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": float("nan")}}, "value.a.b"),
        ({"a": [0, {1, 2}]}, r"value.a\[1\]"),
        ({"a": {1: "one"}}, "key 1"),
        ({"a": Path("x")}, "value.a"),
        ({"a": b"x"}, "value.a"),
        ({"a": float("-inf")}, "value.a"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value, place):
    with pytest.raises(LineageError, match=place):
        fingerprint(value)


def test_a_folder_counts_by_content_and_name_not_by_time_or_record(tmp_path):
    def folder(name, files):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return fingerprint_folder(tmp_path / name)

    files = {"model.safetensors": "w", "config.json": "{}"}
    same = folder("one", files)
    assert folder("two", {**files, "etude.json": "{}", "README.md": "about", "checkpoints/old.safetensors": "x"}) == same
    harmless = (
        "generation_config.json",
        "model.py",
        "pytorch_model.bin",
        "judgement.json",
        "metrics.jsonl",
        "report.html",
        "requirements.txt",
    )
    assert folder("harmless", {**files, **dict.fromkeys(harmless, "{}"), "rollouts/step-00000001.json": "{}"}) == same
    for name in ("tokenizer.json", "chat_template.jinja", "adapter_config.json", "vocab.txt", "tokenizer.model", "adaptation.safetensors"):
        assert folder(f"with {name}", {**files, name: "x"}) != same, name
    assert folder("three", {"model.safetensors": "v", "config.json": "{}"}) != same
    assert folder("four", {"model2.safetensors": "w", "config.json": "{}"}) != same
    assert folder("five", {**files, "additional_chat_templates/tools.jinja": "x"}) != same
    with pytest.raises(LineageError, match="no weights"):
        folder("six", {"README.md": "about"})
    with pytest.raises(LineageError, match="no weights"):
        fingerprint_folder(tmp_path / "nowhere")


def test_a_hash_is_remembered_until_the_file_changes(tmp_path):
    index = Index(tmp_path / "index.sqlite", tmp_path)
    file = tmp_path / "model.gguf"
    file.write_text("one")
    assert fingerprint_folder(file, index) == hashlib.sha256(b"one").hexdigest()
    assert index.known_hash(file) is None, "changed a moment ago: it may change again within the same tick"
    long_ago = time.time() - 100
    os.utime(file, (long_ago, long_ago))
    fingerprint_folder(file, index)
    assert index.known_hash(file) == hashlib.sha256(b"one").hexdigest()
    file.write_text("two")
    assert fingerprint_folder(file, index) == hashlib.sha256(b"two").hexdigest()
    other = tmp_path / "other"
    other.write_text("six")
    os.utime(other, (long_ago, long_ago))
    other.replace(file)  # same path, size and time as what is remembered: the inode tells
    assert fingerprint_folder(file, index) == hashlib.sha256(b"six").hexdigest()


def test_a_stage_is_the_same_stage_unless_its_result_can_differ():
    section = {"parent": "base", "data": {"sources": []}, "train": {"learning_rate": 1e-4, "checkpoint_every": 10, "trackers": []}}

    def identity(parent="p", data="d", **train):
        return stage_identity(parent, data, {**section, "train": {**section["train"], **train}})

    same = identity()
    assert identity(checkpoint_every=5, keep_checkpoints=9, trackers=["wandb"], evaluate_every=3) == same
    assert identity(tokens_per_row=512, activation_checkpointing=True, compile=True) == same, "the remedies against a full device"
    assert stage_identity("p", "d", {**section, "parent": "sft"}) == same
    assert len({same, identity(learning_rate=2e-4), identity(parent="q"), identity(data="e"), identity(seed=1)}) == 5
    assert stage_identity("p", "d", {**section, "objective": {"kind": "dpo"}}) != same


def test_what_is_left_out_are_keys_of_the_recipe():
    from etude.lineage.fingerprint import INDIFFERENT
    from etude.recipe.schema import Train

    assert set(INDIFFERENT) <= set(Train.model_fields)


def test_a_stage_is_the_same_stage_wherever_its_data_lies():
    def identity(folder, held_out, **source):
        sources = [{"path": f"{folder}/rows.jsonl", **source}]
        return stage_identity("p", "d", {"data": {"sources": sources, "held_out": held_out}})

    assert identity("/here", {"path": "/here/apart.jsonl"}) == identity("/there", {"path": "/there/apart.jsonl"})
    assert identity("/here", 8) == identity("/there", 8) != identity("/here", 9)
    assert identity("/here", 8, weight=2.0) != identity("/here", 8)
