"""The commands `vipocc checkpoints ...` and `vipocc export`."""

from __future__ import annotations

from pathlib import Path

import click

from vipocc.cli import App, pass_app, path_option

_verbose = click.option(
    "-v", "verbose", count=True, expose_value=False, help="Say more; -vv shows tracebacks.",
    callback=lambda context, _, value: setattr(context.ensure_object(App), "verbosity", value) if value else None,
)  # fmt: skip
_overwrite = click.option("--overwrite", is_flag=True, help="Replace what is there already.")


@click.group()
def checkpoints() -> None:
    """Show checkpoints; import and export those of the released ViPOcc and BTS.

    No workspace is needed. A checkpoint of ours is a folder with model.safetensors and config.yaml.
    """


@checkpoints.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@path_option("--output", metavar="FOLDER", help="The checkpoint folder to make [default: FILE's name, here].")
@_overwrite
@_verbose
@pass_app
def import_(app: App, file: Path, output: Path | None, overwrite: bool) -> None:
    """Convert FILE, a .pt of the released ViPOcc or BTS code, to a checkpoint folder.

    Nothing in the file is executed: one that asks for more than tensors is refused by the name of what it asks for.
    """
    from vipocc.model.released.importing import import_released

    done = import_released(file, output, overwrite=overwrite)
    found = done.released
    trained = "" if found.iteration is None else f", {found.iteration:,} iterations"
    app.say(
        f"{file}: {found.system}{trained}; {done.read:,} parameters taken over, {done.unused:,} left out that nothing "
        "reads; profile official"
    )
    app.say(f"checkpoint: {done.folder}")
    app.say(f"next: vipocc eval occupancy --checkpoint {done.folder}")


@checkpoints.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--unused", type=click.Choice(["zeros", "omit"]), default="zeros", show_default=True,
    help="Parameters that the released code has and never reads: zeros, so that a strict load succeeds, or left out.",
)  # fmt: skip
@click.option("--bare", is_flag=True, help="The model's state alone, as in the released 'best' files.")
@_overwrite
@_verbose
@pass_app
def export(app: App, folder: Path, file: Path, unused: str, bare: bool, overwrite: bool) -> None:
    """Write the checkpoint FOLDER as FILE in the layout of the released ViPOcc or BTS code."""
    from vipocc.model.released.exporting import export_released

    done = export_released(folder, file, unused="omit" if unused == "omit" else "zeros", bare=bare, overwrite=overwrite)
    dead = f"{done.unused:,} parameters that it never reads are {'zeros' if unused == 'zeros' else 'left out'}"
    app.say(f"{done.file}: {done.entries} entries of {done.system}'s layout, {done.parameters:,} parameters; {dead}")
    for note in done.notes:
        app.say(f"note: {note}")


@checkpoints.command("show")
@click.argument("path")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit of a hub repository.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_verbose
@pass_app
def show(app: App, path: str, revision: str | None, as_json: bool) -> None:
    """Say what PATH is: a checkpoint folder, a run (its best), a released .pt, or a repository of the hub."""
    from vipocc.model import describe

    values = describe.describe(path, revision=revision)
    app.say(describe.as_json(values) if as_json else describe.as_text(values))


@click.command("export")
@click.argument("path", metavar="FOLDER|ID")
@path_option("-o", "--output", required=True, metavar="FOLDER", help="Where to.")
@click.option(
    "--format", "form", type=click.Choice(["torch", "onnx"]), default="torch", show_default=True,
    help="torch.export's .pt2, or ONNX (needs `pip install 'vipocc[onnx]'`).",
)  # fmt: skip
@click.option(
    "--size", nargs=2, type=click.IntRange(min=64), metavar="H W", help="Of images [default: the training's]."
)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit of a hub repository.")
@_overwrite
@_verbose
@pass_app
def export_programs(
    app: App, /, path: str, output: Path, form: str, size: tuple[int, int] | None, revision: str | None, overwrite: bool
) -> None:
    """Write a checkpoint as programs that run without vipocc: encoder, query, and depth where it has that branch.

    The encoder takes an image, the query what it gave, normalised intrinsics and any number of points. Image size is
    fixed. export.json beside them says what goes in and out.
    """
    from vipocc.errors import UsageError
    from vipocc.model.exporting import DESCRIPTION, export
    from vipocc.model.network import ViPOcc

    if (output / DESCRIPTION).exists() and not overwrite:
        raise UsageError(f"{output} holds exported programs already", fix="use --overwrite, or another -o")
    model = ViPOcc.from_pretrained(path, revision=revision)
    chosen = size or model.loaded_config.get("data", {}).get("image_size")
    if chosen is None:
        raise UsageError("this checkpoint does not say the size of its images", fix="add --size H W, such as 192 640")
    files = export(model, output, (int(chosen[0]), int(chosen[1])), "onnx" if form == "onnx" else "torch")
    for name, file in files.items():
        app.say(f"{name}: {file}")
    app.say(f"what goes in and out: {output / DESCRIPTION}")
