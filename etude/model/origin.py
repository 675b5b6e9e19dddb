"""Where does a reference to a model lead: the hub, a folder, a GGUF file, or a file inside an installed package?"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from etude.core.packaged import packaged_file
from etude.errors import ModelError

_HUB_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Weights and what describes them; never pickles, never code, and only the top folder (others hold exports of the same weights).
_DESCRIBES = ["*.json", "*.jinja", "*.txt", "*.model"]
_WANTED = [*_DESCRIBES, "model*.safetensors"]


@dataclass(frozen=True, slots=True)
class Origin:
    """A reference, resolved to a file or folder on this machine."""

    kind: Literal["hub", "folder", "gguf"]
    """What was named."""
    path: Path
    """A folder in Hugging Face layout, or a `.gguf` file."""
    text: str
    """The origin in words, for records and for the user."""
    reference: str
    """What names the same again: of the hub, with the commit that was read, where it is known."""


def resolve(reference: str, *, weights: bool = True) -> Origin:
    """Find what `reference` names, downloading from the hub where it must.

    Args:
        reference: `owner/name` or `owner/name@revision` on the hub, a folder, a `.gguf` file, or `package:module/file.gguf`
            (a file inside an installed package). A folder of that name comes before the hub.
        weights: whether they are to be downloaded too.

    Raises:
        ModelError: nothing is there, or it cannot be reached; the remedy says what to do.
    """
    if reference.startswith("package:"):
        path = packaged_file(reference, ModelError)
    else:
        path = Path(reference).expanduser()
    if path.is_dir():
        return Origin("folder", path.resolve(), f"folder {path}", reference)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{reference} is a file, and not a .gguf", "name the folder it lies in")
        words = f"GGUF file {path.name} of {reference}" if reference.startswith("package:") else f"GGUF file {path}"
        return Origin("gguf", path.resolve(), words, reference)
    match = _HUB_ID.fullmatch(reference)
    if match is None or reference.endswith(".gguf"):
        raise ModelError(
            f"there is no model {reference!r}: no such folder or file, and it is not a hub id",
            "name a folder, a .gguf file, `owner/name` on the hub, or `package:module/file.gguf`",
        )
    folder, _, last = reference.partition("/")
    if match["revision"] is None and Path(folder).is_dir():
        there = sorted(entry.name for entry in Path(folder).iterdir() if not entry.name.startswith("."))
        raise ModelError(
            f"there is no {last!r} in the folder {folder} (it holds {', '.join(there[:5]) or 'nothing'}{', …' if len(there) > 5 else ''})",
            f"mend the path; if the hub's {reference} is meant, say `{reference}@main`",
        )
    return _from_hub(match["repository"], match["revision"], _WANTED if weights else _DESCRIBES)


def _from_hub(repository: str, revision: str | None, wanted: list[str]) -> Origin:
    """Download (or find in the cache) the files that are wanted: configuration, tokenizer, perhaps weights."""
    name = f"{repository}@{revision}" if revision else repository
    page = f"https://huggingface.co/{repository}"
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"])
    except GatedRepoError as error:
        raise ModelError(f"{name} asks for its terms to be accepted", f"accept them at {page}, then `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision!r}", f"look at {page}/tree/main") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"the hub has no {name}, or it is private", f"check the spelling at {page}; if it is private, `hf auth login`"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(f"the hub answered for {name}: {error}", "try again later, or name a local folder") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, ConnectionError) as error:
        raise ModelError(
            f"{name} is neither a folder here nor in the hub's cache, and the hub cannot be reached",
            f"connect and try again, or `hf download {repository}` on a machine that can and name the folder",
        ) from error
    commit = Path(folder).name  # the cache keeps each commit in a folder of its name
    again = f"{repository}@{commit}" if _COMMIT.fullmatch(commit) else name
    return Origin("hub", Path(folder), f"hub {repository} at {commit}", again)
