"""``image``: building, inspecting, signing, verifying and running Apptainer images."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..config import Config
from ..definition import choose_arguments, split_origin
from ..errors import InvalidInput
from ..image_labels import check_launcher
from ..image_policy import RUN, SUBMIT, USES, read_policy
from ..image_run import GPU_DEVICES
from ..installation import SOURCE
from ..logs import warn
from ..watchdog import find_rank_and_size
from .confining import confine
from .group import FAILURE, WithScript
from .output import make_console, make_table, print_json
from .quantities import format_size

Image = Annotated[Path, typer.Argument(metavar="IMAGE.sif", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Userns = Annotated[bool | None, typer.Option("--userns/--no-userns", help="Without Apptainer's privileges or with.")]
#: Where the repository lists what is in images, and what builds them.
REQUIREMENTS = Path("apptainer/build-requirements.txt")

image = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def register(app: typer.Typer) -> None:
    for command in (build, inspect, sbom, scan, sign, verify):
        image.command()(command)
    image.command(cls=WithScript)(run)
    image.command(hidden=True)(labels)
    help_ = "Apptainer images of servers: build, inspect, sign, verify and run them."
    app.add_typer(image, name="image", help=help_, context_settings={"help_option_names": ["-h", "--help"]})


def build(
    definition: Annotated[str, typer.Argument(metavar="FILE.def", help="Or base, server, model.", show_default=False)],
    image: Image,
    origin: Annotated[
        str, typer.Option("--from", metavar="IMAGE", help="To begin with: docker://…, a SIF file, a folder.")
    ] = "",
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A template variable. Nothing secret.")
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", metavar="FOLDER", help="What is taken from; else fetched by pip.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", metavar="FOLDER", help="The repository of demos-hpc; else this one.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option("--files", metavar="FOLDER", help="Becomes /opt/model in the image.")
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="What model.def serves.")] = "",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="By the key that APPTAINER_ENCRYPTION_PEM_PATH or _PASSPHRASE has.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the image.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All that Apptainer says.")] = False,
) -> None:
    """Build an image and test it.

    demos-hpc image build base base.sif --from docker://debian:12-slim

    demos-hpc image build server server.sif --from docker://debian:12-slim --arg BASE=base.sif

    demos-hpc image build model peak.sif --from server.sif --files my_model --model /opt/model/my_model.py:Peak
    """
    from .. import containers

    place = _find_source(source)
    path, text = _read_definition(definition, place)
    containers.check_output(image, overwrite=force)
    given = _read_arguments(arguments or [])
    if origin:
        given["BOOTSTRAP"], given["FROM"] = split_origin(origin)
    if model:
        given["MODEL"] = model
    for folder, name in ((files, "FILES"), (wheels, "WHEELS")):
        if folder is not None and not folder.is_dir():
            raise InvalidInput(f"--{name.lower()} {folder}: there is no such folder")
        if folder is not None:
            given[name] = str(folder.resolve())
    if base := given.get("BASE"):
        given["BASE"] = split_origin(base)[1]
    with tempfile.TemporaryDirectory(prefix="demos-image-") as directory, _show(verbose=verbose) as say:
        none, fetched = Path(directory, "files"), Path(directory, "wheels")
        none.mkdir()
        offered = {"FILES": str(none), "REVISION": _find_revision(files or place)}
        if place:
            offered |= {"SOURCE": str(place), "WHEELS": str(fetched)}
        chosen = choose_arguments(text, given, str(path), offered)
        if place and chosen.get("WHEELS") == str(fetched):
            say("INFO:    Fetching what requirements.txt lists")
            containers.fetch_wheels(place / REQUIREMENTS, fetched)
        containers.build(path, image, chosen, say, overwrite=force, encrypt=encrypt)
    typer.echo(f"{image}: {format_size(image.stat().st_size)}")


def inspect(image: Image, as_json: Json = False) -> None:
    """Show what an image is: digest, processor, labels."""
    from .. import containers
    from ..sif import read_sif

    file, labels = read_sif(image), containers.read_labels(image)
    if as_json:
        print_json({"digest": file.digest, "size": file.size, "architecture": file.architecture, "labels": labels})
        return
    table = make_table(str(image), "what", "value")
    table.add_row("digest", file.digest)
    table.add_row("size", format_size(file.size))
    table.add_row("architecture", file.architecture)
    for name, value in sorted(labels.items()):
        table.add_row(name, value)
    make_console().print(table)


def sbom(
    image: Image,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Where it is written.")] = None,
) -> None:
    """List the software in an image, Debian's and Python's, in CycloneDX."""
    from .. import containers

    text = json.dumps(containers.list_software(image), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def scan(
    image: Image,
    threshold: Annotated[
        str, typer.Option("--fail-on", metavar="SEVERITY", help="low, medium, high or critical.")
    ] = "high",
) -> None:
    """Let the site's scanner, trivy or grype, look for known weaknesses; fail where there are grave ones."""
    from .. import containers

    typer.echo(containers.scan(image, threshold), nl=False)


def sign(
    image: Image,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE.pem", help="A private key.")] = None,
    index: Annotated[
        int | None, typer.Option("--keyidx", metavar="N", help="Of the keyring, as `apptainer key list --secret`.")
    ] = None,
) -> None:
    """Sign an image with a key of your keyring, or of a file."""
    from .. import containers

    containers.sign(image, key, index)
    typer.echo(f"{image} is signed; others trust it where their site's policy names your key")


def verify(
    image: Image,
    use: Annotated[
        str, typer.Option("--for", metavar="USE", help="What it is to be good for: run or submit.")
    ] = SUBMIT,
    as_json: Json = False,
) -> None:
    """Say whether the site's policy lets an image run, and why not; exit status 1 where it does not."""
    from .. import containers

    if use not in USES:
        raise InvalidInput(f"--for {use}; there are {', '.join(USES)}")
    file, flaws, judgment = containers.examine(image, read_policy(Config.load().image_policy), use)
    if as_json:
        said = {"digest": file.digest, "flaws": [str(flaw) for flaw in flaws], "refusals": judgment.refusals}
        print_json({**said, "warnings": judgment.warnings, "may": not judgment.refusals})
        raise typer.Exit(FAILURE if judgment.refusals else 0)
    for warning in judgment.warnings:
        warn(warning)
    judgment.enforce()
    typer.echo(f"{image}: good for {use}; {file.digest}")


def run(
    image: Image,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARGS]...", show_default=False)],
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="PATH[:INSIDE]", help="Seen inside, not to be written.")
    ] = None,
    writable: Annotated[
        list[str] | None, typer.Option("--writable", metavar="PATH[:INSIDE]", help="Seen inside, and written.")
    ] = None,
    gpus: Annotated[str, typer.Option("--gpus", metavar="KIND", help="nv or rocm.")] = "",
    userns: Userns = None,
    use: Annotated[str, typer.Option("--for", hidden=True)] = RUN,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the command instead of running it.")] = False,
) -> None:
    """Run a command in an image, which sees of this host the model's declared data, the registry, and what is named.

    demos-hpc image run server.sif demos-hpc serve nu_atm --workers 2

    mpiexec -n 3 demos-hpc image run server.sif demos-hpc serve nu_atm
    """
    from .. import containers

    if place := find_rank_and_size():
        check_launcher(os.environ, place[1], partial(containers.read_labels, image), str(image))
    device = GPU_DEVICES.get(gpus)
    if device and not Path(device).exists():
        warn(f"--gpus {gpus}: this host has no {device}, and so no GPU of this kind that works")
    words = confine(image, data or [], writable or [], gpus, userns, use)(command)
    if dry_run:
        import shlex

        typer.echo(shlex.join(words))
        return
    os.execvp(words[0], words)


def labels(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    license_class: Annotated[str, typer.Option("--license-class")] = "private",
    revision: Annotated[str, typer.Option("--revision")] = "unknown",
) -> None:
    """Print the labels of an image that serves a model; %post of model.def calls it."""
    from ..image_labels import format_labels, make_labels
    from ..model import load

    typer.echo(format_labels(make_labels(load(model).spec, model, license_class, revision)), nl=False)


def _find_source(given: Path | None) -> Path | None:
    """The repository: the one that is named, else the one that this package is used from, else this directory."""
    for place in [given] if given else [SOURCE, Path.cwd()]:
        if (place / REQUIREMENTS).is_file():
            return place.resolve()
    if given:
        raise InvalidInput(f"--source {given}: that is no repository of demos-hpc, it has no {REQUIREMENTS}")
    return None


def _read_definition(name: str, source: Path | None) -> tuple[Path, str]:
    """The definition file of this path, or of this name in the repository."""
    folder = source / REQUIREMENTS.parent if source else None
    for path in (Path(name), *([folder / f"{name}.def"] if folder else [])):
        if path.is_file():
            try:
                return path, path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise InvalidInput(f"definition file {path} cannot be read: {error}") from None
    there = ", ".join(sorted(path.stem for path in folder.glob("*.def"))) if folder else ""
    remedy = f"there are {there}" if there else "the repository of demos-hpc has some: go there, or say --source FOLDER"
    raise InvalidInput(f"there is no definition file {name}; {remedy}")


def _read_arguments(words: list[str]) -> dict[str, str]:
    for word in words:
        if not word.partition("=")[0].isidentifier() or "=" not in word:
            raise InvalidInput(f"--arg {word}: write it NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _find_revision(source: Path | None) -> str:
    """What git says of a folder."""
    if source is None:
        return "unknown"
    try:
        said = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return said.stdout.strip() or "unknown"


@contextmanager
def _show(*, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Shows where a build is."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if verbose or not console.is_terminal:
        yield lambda line: console.print(line, markup=False) if verbose or line.startswith("INFO:") else None
        return
    with console.status("building …") as status:
        yield lambda line: status.update(line.removeprefix("INFO:").strip()) if line.startswith("INFO:") else None
