"""Where do prepared corpora lie? `corpora/NAME/VERSION` in the project, found again by `corpus:NAME`, `corpus:NAME@VERSION` or folder."""

import json
from pathlib import Path

from etude.errors import LineageError
from etude.lineage.project import find_project, make_project

MANIFEST = "manifest.json"
SCHEME = "corpus:"


def versions(name: str, start: Path | None = None) -> dict[int, Path]:
    """The versions of a corpus in the project at or above `start`, oldest first."""
    project = find_project(start)
    folder = project / "corpora" / name if project else None
    found = folder.iterdir() if folder is not None and folder.is_dir() else ()
    return dict(sorted((int(path.name), path) for path in found if path.name.isdigit() and (path / MANIFEST).is_file()))


def corpus_folder(reference: str, start: Path | None = None) -> Path:
    """The folder of a prepared corpus.

    Args:
        reference: `corpus:NAME`, `NAME` (its newest version), either with `@VERSION`, or a folder.
        start: where the project is looked for, upwards; by default the current directory.

    Raises:
        LineageError: there is none.
    """
    name, _, version = reference.removeprefix(SCHEME).partition("@")
    if not reference.startswith(SCHEME) and (Path(reference).expanduser() / MANIFEST).is_file():
        return Path(reference).expanduser()
    known = versions(name, start)
    if version.isdigit() and int(version) in known:
        return known[int(version)]
    if known and not version:
        return known[max(known)]
    there = f"{name} has the versions {', '.join(map(str, known))}" if known else "make one with `etude corpus prepare`"
    raise LineageError(f"there is no corpus {reference!r}", there)


def corpora_folder(name: str, start: Path | None = None) -> Path:
    """Where the versions of a corpus lie; made where it is missing."""
    folder = make_project(start) / "corpora" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def with_identity(name: str, identity: str, start: Path | None = None) -> Path | None:
    """The version of a corpus that was prepared from the same inputs in the same way, if there is one."""
    for path in versions(name, start).values():
        if json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("identity") == identity:
            return path
    return None
