"""`etude tokenizer train|extend|show`: how text becomes tokens, learnt, continued or looked at."""

import json
from pathlib import Path
from typing import Annotated

import typer

Columns = Annotated[list[str] | None, typer.Option("--column", help="Rename a column: THEIRS=OURS, such as body=text. May be repeated.")]
Paths = Annotated[list[str], typer.Argument(help="Files, folders, globs, hub:owner/name, package:…, recipes (.yaml) for what they learn.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    room = typer.Typer(help="Train a tokenizer, extend a base's, or look at what one does.", rich_markup_mode=None, no_args_is_help=True)
    room.command("train")(train)
    room.command("extend")(extend)
    room.command("show")(show)
    app.add_typer(room, name="tokenizer")


def train(
    to: Annotated[str, typer.Option(help="The folder to make.")],
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, hub:owner/name, package:…, or recipes (.yaml).")] = None,
    kind: Annotated[str, typer.Option(help="bpe, bytes, characters or alphabet (DNA, protein, SMILES, or letters of your own).")] = "bpe",
    size: Annotated[int | None, typer.Option(help="Of bpe: tokens in all. By default 8192.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="chatml, or a file with a Jinja template.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="KEY=VALUE, such as pattern=gpt-2, alphabet=smiles, special='[<|tool|>]'. May be repeated."),
    ] = None,
    column: Columns = None,
    as_json: Json = False,
) -> None:
    """Learn a tokenizer from text, and save it as a Hugging Face tokenizer.

    The same text gives the same files. Every option is in docs/tokenizers.md.
    """
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.cli.words import where  # noqa: PLC0415
    from etude.compose.tokenizers import tokenizer_train  # noqa: PLC0415

    chosen = [*(options or [])]
    if size is not None:
        chosen.append(f"size={size}")
    if chat_template is not None:
        chosen.append(f"chat_template={json.dumps(_template(chat_template))}")
    made = tokenizer_train(paths or [], to=to, kind=kind, options=chosen, columns=_columns(column), voice=TerminalVoice())
    if as_json:
        figures = {"bytes_per_token": made.sample.bytes_per_token, "unknown": made.sample.unknown, "changed": made.sample.changed}
        typer.echo(json.dumps({"folder": str(made.folder), "size": made.size, **figures, "lines": made.lines}, ensure_ascii=False))
        return
    typer.echo(f"{where(made.folder.absolute())}: {made.size:,} tokens")
    if made.sample.texts:
        typer.echo(f"on a sample of the text: {made.sample.line()}")
    typer.echo(f"look at it with `etude tokenizer show {where(made.folder.absolute())}`")


def extend(
    base: Annotated[str, typer.Argument(help="A model by any of its names, or a folder with a tokenizer alone.")],
    paths: Paths,
    to: Annotated[str, typer.Option(help="The folder to make.")],
    add: Annotated[int, typer.Option(min=1, help="How many tokens.")] = 1024,
    minimum_count: Annotated[int, typer.Option(min=1, help="How often a pair must occur to become a token.")] = 2,
    column: Columns = None,
    as_json: Json = False,
) -> None:
    """Continue a base's merges on a new language or domain, and give its model the new tokens.

    Old ids stay. A new token begins as the mean of the old ones it is made of. Byte-level BPE only.
    """
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.cli.words import where  # noqa: PLC0415
    from etude.compose.extending import tokenizer_extend  # noqa: PLC0415

    made = tokenizer_extend(
        base, paths, to=to, add=add, minimum_count=minimum_count, columns=_columns(column), voice=TerminalVoice()
    )
    before, after = made.before.bytes_per_token, made.after.bytes_per_token
    if as_json:
        figures = {"bytes_per_token": {"before": before, "after": after}, "new_tokens": [made.added.start, made.added.stop]}
        typer.echo(json.dumps({"folder": str(made.folder), **figures, "lines": made.lines}, ensure_ascii=False))
        return
    typer.echo(f"{where(made.folder.absolute())}: {len(made.added):,} new tokens, ids {made.added.start} to {made.added.stop - 1}")
    typer.echo(f"on a sample of the text: {before:.2f} bytes a token before, {after:.2f} after")
    if made.after.first_changed is not None:
        typer.echo(made.after.line())


def show(
    name: Annotated[str, typer.Argument(help="A folder with a tokenizer, or a model by any of its names.")],
    text: Annotated[str | None, typer.Argument(help="What it is to write; by default a little of everything.")] = None,
    file: Annotated[Path | None, typer.Option(help="Take the text from a file.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a tokenizer does to a text, in colour.

    And bytes a token, whether the text comes back, special tokens and the chat template.
    """
    from rich.console import Console  # noqa: PLC0415

    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.tokenizers import tokenizer_show  # noqa: PLC0415

    seen = tokenizer_show(name, _text_of(file) if file is not None else text, voice=TerminalVoice())
    if as_json:
        typer.echo(json.dumps(seen.to_dict(), ensure_ascii=False))
        return
    Console(highlight=False).print(seen)


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or []]
    if wrong := next((one for one, pair in zip(given or [], pairs) if not (pair[0] and pair[2])), None):
        raise typer.BadParameter(f"{wrong!r} should be THEIRS=OURS, such as body=text", param_hint="--column")
    return {theirs: ours for theirs, _, ours in pairs}


def _template(given: str) -> str:
    return given if given == "chatml" else _text_of(Path(given))


def _text_of(file: Path) -> str:
    from etude.errors import DataError  # noqa: PLC0415

    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"{file}: cannot be read: {why}", "name a text file in UTF-8") from error
