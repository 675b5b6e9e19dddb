import subprocess
import sys
from pathlib import Path

import pytest

from etude.errors import LineageError
from etude.lineage.clean import free, freeable
from etude.lineage.fingerprint import fingerprint

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
    items = freeable(store)
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
    items = [i for i in freeable(store) if i.path == run.folder]
    with store.runs.open("sentiment", IDENTITY, "only", draft().parent), pytest.raises(LineageError, match="in use again"):
        free(store, items)
