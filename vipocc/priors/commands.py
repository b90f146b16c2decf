"""`vipocc priors`: depth, sam, anchors, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vipocc.cli import App, pass_app, path_option, workspace_options
from vipocc.errors import UsageError
from vipocc.progress import size

if TYPE_CHECKING:
    from vipocc.priors.jobs import PriorKind
    from vipocc.priors.sources import Kind

F = TypeVar("F", bound=Callable[..., Any])


class SourceName(click.ParamType[Any]):
    """The name of a source of one kind of prior, or `auto`; those that are installed are listed when asked."""

    name = "source"

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the names, for `--help`."""
        from vipocc.priors.sources import names

        return f"[{'|'.join(('auto', *names(self.kind)))}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        from vipocc.priors.sources import names

        if value != "auto" and value not in names(self.kind):
            self.fail(f"{value!r} is no source of {self.kind}; use one of auto, {', '.join(names(self.kind))}.")
        return str(value)


class BatchSizeOption(click.ParamType[Any]):
    """A number from 1, or `auto`."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or `auto`."""
        if value == "auto":
            return "auto"
        if not str(value).isdecimal() or int(value) == 0:
            self.fail(f"{value!r} is neither a number from 1 nor 'auto'.", param, ctx)
        return int(value)


@click.group()
def priors() -> None:
    """Compute pseudo-depth, instances and sampling anchors, once, before training.

    What the split needs is indexed and prepared first; for the synthetic dataset the world is generated if need be.
    A second run computes only what is missing.
    """


def _work_options(command: F) -> F:
    """Add what all three commands take."""
    options = [
        click.option(
            "--split", type=click.Choice(["train", "val", "test", "all"]), default="all", show_default=True,
            help="Frames that this split's samples touch, their neighbours t+1 included.",
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images, for a trial."),
        click.option("--store", "name", metavar="NAME", help="Write a second store of this kind, <kind>-NAME.zarr."),
        click.option("--shard", metavar="I/N", help="Do only part I of N (from 0), for array jobs."),
        click.option("--scheduler", metavar="tcp://…", help="Run on a dask.distributed cluster, a worker per device."),
        click.option("--jobs", type=click.IntRange(min=1), help="Processes on the CPU [default: by the work]."),
        click.option("--overwrite", is_flag=True, help="Replace rows that another model or other parameters made."),
        click.option("--no-auto", is_flag=True, help="Refuse to generate, index or prepare what is missing."),
        click.option("--dry-run", is_flag=True, help="Say how many rows and bytes and how much time; write nothing."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _device_options(kind: Kind) -> Callable[[F], F]:
    """Return what adds the options of commands with networks."""
    options = [
        click.option(
            "--prior", "source", type=SourceName(kind),
            help="What computes, also one that another package brings; 'simulated' degrades the exact truth of the "
            "synthetic world [default there].",
        ),
        click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."),
        click.option("--devices", type=click.Choice(["all"]), help="All CUDA devices of this machine, a process each."),
        click.option(
            "--batch-size", type=BatchSizeOption(), metavar="N|auto",
            help="Images the networks take at once; auto: tried out on CUDA, halved when memory runs out.",
        ),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Arithmetic of the networks."),
    ]  # fmt: skip

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@priors.command("depth")
@_work_options
@click.option(
    "--model", metavar="ID|FOLDER|PTH", help="Metric Depth Anything V2: a hub id, a local folder or an original .pth."
)
@click.option("--max-depth", type=float, metavar="METRES", help="Of an original .pth whose name does not tell it.")
@click.option(
    "--source",
    "images",
    type=click.Choice(["prepared", "raw"]),
    help="Prepared images (as published), or the dataset's own, into the store depth-raw [default: prepared].",
)
@click.option(
    "--preprocessing",
    type=click.Choice(["auto", "official", "hub"]),
    help="The published code's, or that of the model's image processor [default: the published one, unless the "
    "model's processor fixes the size].",
)
@click.option(
    "--input-size",
    type=click.Choice(["published", "native"]),
    help="Short side 518 as published, or the image's own size: faster, other depth [default: published].",
)
@click.option("--dtype-stored", type=click.Choice(["float16", "float32"]), help="Type of the stored metres.")
@click.option("--compile", "compiled", is_flag=True, default=None, help="Compile the network first (CUDA).")
@_device_options("depth")
@workspace_options
@pass_app
def depth(app: App, /, **options: Any) -> None:
    """Metric pseudo-depth of the stereo frames, by Depth Anything V2 or another source that is installed."""
    network = ("model", "max_depth", "images", "preprocessing", "input_size", "compiled")
    stored = options.pop("dtype_stored")
    app = _with_options(app, "depth", options, {name: options.pop(name) for name in network})
    if stored is not None:
        app = replace(app, overrides=(*app.overrides, f"priors.depth.stored={stored}"))
    _stage(app, ("depth",), options)


@priors.command("sam")
@_work_options
@click.option("--detector", metavar="ID|FOLDER|PTH", help="Grounding DINO: a hub id, a folder, or an official .pth.")
@click.option("--segmenter", metavar="ID|FOLDER|PTH", help="SAM: a hub id, a folder, or an official .pth.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "transformers", "original"]),
    help="What runs the networks: transformers, or the original packages for .pth files [default: by the weights].",
)
@click.option("--tokenizer", metavar="ID|FOLDER", help="For a detector given as .pth: BERT's tokenizer.")
@click.option(
    "--encoding",
    type=click.Choice(["square", "native"]),
    help="SAM's input: padded to a square as published [default], or to whole patches only (faster, not the same).",
)
@click.option(
    "--cameras", type=click.Choice(["perspective", "all"]), default="perspective", show_default=True,
    help="Whether fisheyes are segmented too.",
)  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, default=None, help="Compile SAM's encoder first (CUDA).")
@_device_options("instances")
@workspace_options
@pass_app
def sam(app: App, /, **options: Any) -> None:
    """Instances by Grounding DINO and SAM, or another source that is installed, and the anchors drawn from them."""
    more = ("detector", "segmenter", "engine", "tokenizer", "encoding", "compiled")
    app = _with_options(app, "instances", options, {name: options.pop(name) for name in more})
    _stage(app, ("instances", "anchors"), options)


@priors.command("convert")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", metavar="ID|FOLDER", default="google-bert/bert-base-uncased", show_default=True,
    help="For a Grounding DINO's .pth: BERT's tokenizer, if none lies beside the file.",
)  # fmt: skip
def convert(source: str, target: Path, tokenizer: str) -> None:
    """Convert a Grounding DINO or SAM checkpoint between its two layouts.

    SOURCE is an official .pth and TARGET a new folder for transformers, or the other way round. Nothing in the file is
    executed; tensors that are missing or unknown are an error.
    """
    from vipocc.priors.grounded_sam.conversion import convert as run

    kind = run(source, target, tokenizer)
    click.echo(f"{'Grounding DINO' if kind == 'grounding-dino' else 'SAM'}: {source} is now also {target}")


@priors.command("anchors")
@_work_options
@click.option(
    "--cameras", type=click.Choice(["perspective", "all"]), default="perspective", show_default=True,
    help="Whether fisheyes get anchors too.",
)  # fmt: skip
@workspace_options
@pass_app
def anchors(app: App, /, **options: Any) -> None:
    """Sampling anchors (SNOG) from the instances there are; `priors sam` ends with this by itself."""
    _stage(app, ("anchors",), {"device": "cpu", **options})


@priors.command("report")
@click.option("--store", "name", metavar="NAME", help="Report on the second stores called <kind>-NAME.zarr.")
@click.option(
    "--frames",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Frames in the contact sheets, evenly spaced.",
)
@path_option("--output", metavar="FILE", help="The page [default: reports/priors.html in the workspace].")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object instead of writing a page.")
@click.option("--scheduler", metavar="tcp://…", help="Read on the workers of a dask.distributed cluster.")
@workspace_options
@pass_app
def report(app: App, name: str | None, frames: int, output: Path | None, as_json: bool, scheduler: str | None) -> None:
    """Write one HTML page to look at before training: contact sheets, distributions, outliers, provenance."""
    from vipocc.priors.report.compose import compose
    from vipocc.priors.report.examine import examine
    from vipocc.priors.report.sheets import Sheets

    workspace = app.workspace
    examined = examine(workspace, name, scheduler)
    if as_json:
        click.echo(json.dumps(examined.summary(), indent=1, ensure_ascii=False))
        return
    path = output or workspace.reports / (f"priors-{name}.html" if name else "priors.html")
    app.say(f"priors of {examined.dataset}: {', '.join(examined.provenance)} -> {path}")
    compose(examined, Sheets(examined.stores, examined.labels, app.config.priors.snog), frames).save(path)
    told = f"{len(examined.outliers):,} outliers" if examined.outliers else "no outliers"
    app.say(f"{told}; {size(path.stat().st_size)}, open it in a browser")


def _with_options(app: App, kind: Kind, options: dict[str, Any], more: dict[str, Any]) -> App:
    """Return the app with options as configuration overrides, so that what is saved beside results is what ran.

    Args:
        app: of the command line.
        kind: of prior.
        options: of the command; the ones that are configuration are taken out.
        more: those of the network, by their names in the configuration.
    """
    from vipocc.priors import sources

    given = {**more, "batch_size": options.pop("batch_size"), "dtype": options.pop("dtype")}
    name = options.pop("source")
    dataset = app.workspace.dataset
    if name is None and any(value is not None for value in more.values()):
        # Whoever names a model wants it to run, also where the default is to simulate.
        configured = sources.chosen(kind, app.config.priors, dataset)
        name = sources.network(kind) if configured == "simulated" else configured
    overrides = [] if name is None else [f"priors.kinds.{kind}={name}"]
    source = sources.source_class(kind, name or sources.chosen(kind, app.config.priors, dataset))
    for key, value in given.items():
        if value is None:
            continue
        if key not in source.Options.model_fields:
            known = ", ".join(f"-o {sources.options_section(source)}.{field}" for field in source.Options.model_fields)
            flag = next(option.opts[0] for option in click.get_current_context().command.params if option.name == key)
            raise UsageError(f"the source '{source.name}' has no option for {flag}", fix=f"it has {known or 'none'}")
        overrides.append(f"{sources.options_section(source)}.{key}={json.dumps(value)}")
    return replace(app, overrides=(*app.overrides, *overrides))


def _stage(app: App, kinds: Sequence[PriorKind], options: dict[str, Any]) -> None:
    from vipocc.priors.stage import Wanted, run_stage

    wanted = Wanted(every_device=options.pop("devices", None) == "all", auto=not options.pop("no_auto"), **options)
    run_stage(kinds, app.workspace, app.config, wanted, app.say)
