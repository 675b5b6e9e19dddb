import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.errors import LineageError
from etude.lineage.clean import free, freeable, unfinished
from etude.lineage.fingerprint import fingerprint
from etude.lineage.record import Parent

IDENTITY = fingerprint({"stage": 1})


def test_the_same_stage_finds_its_folder_again(store, draft, write):
    parent = draft().parent
    with store.runs.open("sentiment", IDENTITY, "only", parent) as run:
        (run.folder / "metrics.jsonl").write_text("{}\n")
    with store.runs.open("sentiment", IDENTITY, "only", parent) as again:
        assert again == run and (again.folder / "metrics.jsonl").exists()
        store.runs.remove(again.folder)
    assert store.runs.all() == ([], [])


def test_two_processes_do_not_work_on_one_stage(store, draft):
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent) as run:
        with pytest.raises(LineageError, match="another process"), store.runs.open("sentiment", IDENTITY, "only", draft().parent):
            pass
        other = "import sys; from pathlib import Path; from etude.lineage.lock import is_locked; print(is_locked(Path(sys.argv[1])))"
        ask = [sys.executable, "-c", other, str(run.folder / "lock")]
        root = Path(__file__).parents[2]
        assert subprocess.run(ask, capture_output=True, text=True, cwd=root, check=True).stdout == "True\n"
        assert freeable(store) == []
    assert subprocess.run(ask, capture_output=True, text=True, cwd=root, check=True).stdout == "False\n"


def test_a_run_holds_its_parent_and_needs_it(store, draft, write):
    store.publish(draft("sft"), write())
    parent = store.parent("sft")
    with store.runs.open("dpo", IDENTITY, "dpo", parent) as run:
        pass
    with pytest.raises(LineageError, match="unfinished run dpo"):
        store.remove("sft")
    store.runs.remove(run.folder)
    store.remove("sft")
    with pytest.raises(LineageError, match="parent sft@1 is gone"), store.runs.open("dpo", IDENTITY, "dpo", parent):
        pass


def test_clean_says_first_and_spares_what_is_needed(store, draft, write):
    for minute in range(4):
        store.publish(draft("sft", minutes=minute), write("x" * 1000))
    store.set_alias("sft@1", "production")
    for minute in range(2):  # dpo@1 and dpo@2 stand on sft@2; dpo@1 is old, so both it and nothing else can go
        store.publish(draft("dpo", store.parent("sft@2"), minutes=10 + minute), write())
    store.publish(draft("old", store.parent("sft@3"), minutes=20), write())
    store.publish(draft("old", minutes=21), write())
    with store.runs.open("sft", IDENTITY, "only", draft().parent) as run:
        (run.folder / "checkpoint").write_bytes(bytes(5000))
    (store.runs.folder / "stray").mkdir()
    assert [i.reference for i in freeable(store)] == ["old@1", "dpo@1", "sft@3"], "what can be gone on with stays"
    items = freeable(store, runs=True)
    # sft@3 can go because old@1, which alone stands on it, goes first.
    assert [i.reference or i.path.name for i in items] == [run.folder.name, "stray", "old@1", "dpo@1", "sft@3"]
    assert items[0].bytes > 5000 and items[4].bytes > 1000
    assert len(store.records()) == 8, "a dry run removes nothing"
    assert free(store, items) == sum(i.bytes for i in items)
    assert sorted(r.reference for r in store.records()) == ["dpo@2", "old@2", "sft@1", "sft@2", "sft@4"]
    assert freeable(store) == [] and store.runs.all() == ([], [])


def test_clean_looks_again_before_it_removes(store, draft, write):
    for minute in range(2):
        store.publish(draft(minutes=minute), write())
    items = freeable(store)
    store.set_alias("sentiment@1", "kept")
    with pytest.raises(LineageError, match="alias sentiment@kept"):
        free(store, items)
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent) as run:
        pass
    items = [i for i in freeable(store, runs=True) if i.path == run.folder]
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent), pytest.raises(LineageError, match="in use again"):
        free(store, items)


def test_an_unfinished_run_is_cleaned_only_when_asked_and_says_how_far_it_came(store, draft):
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent) as run:
        (run.folder / "checkpoints/step-00000100").mkdir(parents=True)
        (run.folder / "checkpoints/step-00000200-2").mkdir()
    ago = time.time() - 3 * 24 * 3600
    for path in run.folder.rglob("*"):
        os.utime(path, (ago, ago))
    assert freeable(store) == []
    (item,) = freeable(store, runs=True)
    assert item == unfinished(store)[0] and item.reason == "an unfinished run, saved at step 200, last worked on 3 days ago"
    free(store, [item])
    assert store.runs.all() == ([], [])


def test_what_a_finished_stage_left_over_goes(store, draft, write):
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent) as run:
        (run.folder / "metrics.jsonl").write_text("{}\n")
    store.publish(draft(identity=IDENTITY), write())
    (item,) = freeable(store)
    assert item.path == run.folder and item.reason == "left over; sentiment@1 is finished" and unfinished(store) == []


def test_bases_and_pages_go_where_nothing_stands_on_them(store, draft, write):
    gguf = Parent(kind="base", reference="package:holder/Tiny.Q4_1.gguf", fingerprint=fingerprint({"base": 2}))
    for name in ("Tiny.Q4_1-0123456789ab", "Other-0123456789ab", "Begun-0123456789ab"):
        (store.bases / name).mkdir()
        (store.bases / name / "model.safetensors").write_bytes(bytes(1000))
    store.publish(draft(parent=gguf), write())
    begun = Parent(kind="base", reference="/somewhere/Begun.gguf", fingerprint=fingerprint({"base": 3}))
    with store.runs.open("dpo", IDENTITY, "dpo", begun):
        pass
    for folder, parent, tuned in (("a", "little", "sentiment@1"), ("b", "sentiment@7", "sentiment@1"), ("c", "", "")):
        (store.root / "comparisons" / folder).mkdir(parents=True)
        if tuned:
            page = {"about": {"parent": parent, "tuned": tuned}}
            (store.root / "comparisons" / folder / "judgement.json").write_text(json.dumps(page))
    (store.root / "frontiers" / "run-sft").mkdir(parents=True)
    items = freeable(store)
    assert [i.path.name for i in items] == ["Other-0123456789ab", "a", "run-sft"], "sentiment@7 cannot be compared again"
    assert [i.reason.partition(";")[0] for i in items[:2]] == [
        "a model's weights, converted or newborn",
        "the comparison of little and sentiment@1",
    ]
    with store.runs.open("other", fingerprint({"stage": 2}), "s", begun.model_copy(update={"reference": "Other.gguf"})):
        pass
    with pytest.raises(LineageError, match="Other-0123456789ab is in use again"):
        free(store, items)
    assert free(store, items[1:]) == items[1].bytes and not items[1].path.exists() and items[0].path.exists()
