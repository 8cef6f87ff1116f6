"""``run`` starts a launch; ``serve`` is a rank of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..config import Config
from ..errors import InvalidInput
from ..image_labels import check_fit
from ..image_policy import RUN
from ..image_run import MPI_SETTINGS
from ..mpiexec import CHOICES, find_launcher, tolerate_faults
from ..starter import describe, make_programs, make_run_directory, start
from ..threads import VARIABLES, limit_threads
from ..watchdog import find_rank_and_size
from .confining import Subject, confine, find_subjects
from .group import FAILURE, WORDS, WithScript
from .output import WIDTH_OF_FILES

#: Environment variables of launchers that tell a process nothing else than that it is a rank.
LAUNCHED = ("PMI_FD", "PMIX_RANK", "PMI_RANK", "PALS_RANKID")

#: Exit statuses from here on mean that a signal came.
FIRST_OF_SIGNALS = 128

MODEL_HELP = (
    "file.py:Class, package.module:Class, libfile.so for a model in C, C++ or Fortran, or file.json that describes one,"
    " file.h5 to serve its datasets, or the short name of a model that comes with demos-hpc: nu_atm."
)
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} Or an image.sif, for the model in it.", show_default=False),
]
Also = Annotated[
    list[str] | None, typer.Option("--model", metavar="MODEL", help="A further model to serve; may be repeated.")
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image", metavar="FILE.sif", help="An Apptainer image to run in; repeated, one for each model, - for none."
    ),
]
LauncherKind = Annotated[
    str, typer.Option("--launcher", help=f"What starts the ranks: {', '.join(CHOICES)}.", metavar="KIND")
]


def register(app: typer.Typer) -> None:
    app.command(cls=WithScript)(run)
    app.command()(serve)


def run(
    model: Model,
    script: Annotated[
        str, typer.Argument(metavar="ANALYSIS.PY", help="The script that calls the model.", show_default=False)
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Of the script.", show_default=False)
    ] = None,
    also: Also = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            "--workers", "-w", metavar="N", help="Workers of each model, 2 unless given; repeated, one for each."
        ),
    ] = None,
    ranks: Annotated[int, typer.Option("--ranks", "-n", metavar="M", help="Ranks of the analysis.")] = 1,
    image: Images = None,
    launcher: LauncherKind = "auto",
    gpus: Annotated[str, typer.Option("--gpus", metavar="KIND", help="For images: nv or rocm.")] = "",
    use: Annotated[str, typer.Option("--for", hidden=True)] = RUN,
    fault_tolerant: Annotated[
        bool, typer.Option("--fault-tolerant", help="Go on when a worker dies; takes Open MPI.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the command instead of running it.")] = False,
) -> None:
    """Serve models and run an analysis with them, in one MPI launch.

    The script gets the model by demos_hpc.connect(), and finds its own ranks as MPI.COMM_WORLD. Inside a Slurm
    allocation the ranks are started by srun, otherwise by mpiexec.

    demos-hpc run nu_atm --workers 4 fit.py --steps 1000
    """
    if not Path(script).is_file():
        raise InvalidInput(f"there is no script {script!r} (from {Path.cwd()})")
    subjects = find_subjects([model, *(also or [])], image or [])
    start_launch(
        [subject.model for subject in subjects],
        workers or [2],
        [script, *(arguments or [])],
        ranks,
        launcher,
        subjects=subjects,
        gpus=gpus,
        use=use,
        fault_tolerant=fault_tolerant,
        dry_run=dry_run,
    )


def start_launch(
    models: list[str],
    workers: list[int],
    analysis: list[str],
    ranks: int,
    kind: str,
    *,
    subjects: Sequence[Subject] = (),
    gpus: str = "",
    use: str = RUN,
    fault_tolerant: bool = False,
    dry_run: bool = False,
) -> None:
    """Runs one launch, and exits with its status where that is not 0."""
    launcher = find_launcher(kind=kind)
    if fault_tolerant:
        launcher = tolerate_faults(launcher)
    for subject in subjects:
        check_fit(launcher.kind, subject.labels, subject.image)
    with make_run_directory(launcher) as directory:
        seen = [str(directory)]
        contain = [confine(Path(s.image), writable=seen, gpus=gpus, use=use) if s.image else None for s in subjects]
        programs = make_programs(models, workers, analysis, ranks, contain=contain)
        plan = describe(launcher, programs, directory, MPI_SETTINGS if any(contain) else None)
        if dry_run:
            typer.echo(str(plan))
            return
        status = start(plan)
    if status:
        typer.echo(f"demos-hpc: the launch ended with exit status {status}", err=True)
        raise typer.Exit(status)


def start_again(context: typer.Context, model: str, workers: int, kind: str = "auto") -> NoReturn:
    """Runs this very command once more, as the analysis of a launch that serves ``model``.

    It writes where we do; what it exits with, this process exits with.
    """
    launcher = find_launcher(kind=kind)
    with make_run_directory(launcher) as directory:
        status_file = directory / "status"
        analysis = ["-m", "demos_hpc.cli.rank", str(status_file), *context.meta[WORDS]]
        status = start(describe(launcher, make_programs([model], [workers], analysis), directory, _find_terminal()))
        if status == 0 and status_file.exists():
            raise typer.Exit(int(status_file.read_text(encoding="ascii")))
    remedy = "; `demos-hpc doctor` tests the installation" if status < FIRST_OF_SIGNALS else ""
    typer.echo(f"demos-hpc: the launch ended with exit status {status}{remedy}", err=True)
    raise typer.Exit(status or FAILURE)


def _find_terminal() -> dict[str, str]:
    """What a rank cannot see behind its launcher, which may even give it a terminal of its own, for `rich`."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        return {"FORCE_COLOR": "1", "COLUMNS": str(os.get_terminal_size().columns)}
    return {"TERM": "dumb", "COLUMNS": str(WIDTH_OF_FILES), "LINES": "100"}


def serve(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help=MODEL_HELP, show_default=False)] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Of the program of --exec.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, metavar="N", help="Workers of a server of its own, 2 unless given."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What the server is called; by default as the model.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="Threads of numerical libraries in each rank, and of models in C that allow it; 1 unless given.",
        ),
    ] = None,
    program: Annotated[
        str, typer.Option("--exec", metavar="PROGRAM", help="A program in C, C++ or Fortran, as workers of a server.")
    ] = "",
    spec: Annotated[
        str,
        typer.Option("--spec", metavar="FILE.json", help="Describes the model of a program, or of ranks that are one."),
    ] = "",
) -> None:
    """Serve a model until it is stopped: by itself, or as a rank of an MPI launch.

    By itself, it starts a dispatcher and N workers, and starts again whichever dies. Clients of any job find it by
    its name: demos_hpc.connect("nu_atm").

    As a rank of a launch, the first one hands out the work, the others compute.

    Without --threads, OMP_NUM_THREADS and OPENBLAS_NUM_THREADS count where they are set.

    With --exec, its workers are a program that calls demos_serve(). In a launch such programs are ranks of their own:
    the first rank has the description of their model instead of a MODEL, and hands out the work.

    demos-hpc serve nu_atm --workers 2

    demos-hpc serve --exec ./my_model --spec my_model.json --workers 2

    mpiexec -n 3 demos-hpc serve nu_atm : -n 1 python -m demos_hpc fit.py

    mpiexec -n 1 demos-hpc serve --spec my_model.json : -n 2 ./my_model : -n 1 python -m demos_hpc fit.py
    """
    is_rank = workers is None and (find_rank_and_size() is not None or any(name in os.environ for name in LAUNCHED))
    words = [*([model] if model else []), *(arguments or [])]
    if program:
        from .servers import read_program, supervise

        if (find_rank_and_size() or (0, 1))[1] > 1:
            from ..programs import refuse

            refuse(
                f"--exec {program} is for a server of its own; in a launch the program has ranks of its own: mpiexec"
                f" -n 1 demos-hpc serve --spec {spec or 'FILE.json'} : -n 4 {program} : -n 1 python -m demos_hpc"
                " analysis.py",
                Config.load(),
            )
        supervise("", workers or 2, name, threads, read_program(program, spec, words))
    elif len(words) > 1:
        raise InvalidInput(f"{' '.join(words)}: serve takes one MODEL; what a program is given stands behind --exec")
    elif spec and model:
        raise InvalidInput(f"{model} and --spec {spec}: a MODEL describes itself, and --spec is for programs")
    elif spec and not is_rank:
        raise InvalidInput(
            f"--spec {spec} describes a program: name it by --exec ./program, or start its ranks in one launch, mpiexec"
            f" -n 1 demos-hpc serve --spec {spec} : -n 4 ./program : -n 1 python -m demos_hpc analysis.py. A library"
            f" that it describes is served by `demos-hpc serve {spec}`"
        )
    elif not spec and not model:
        raise InvalidInput("serve takes a MODEL, or a program by --exec; `demos-hpc serve --help` tells more")
    elif is_rank:
        serve_rank(model, threads, spec)
    else:
        from .servers import supervise

        supervise(model, workers or 2, name, threads)


def serve_rank(model: str, threads: int | None, spec: str) -> None:
    """One rank of a launch; with the description of a program, the one that hands out work to its ranks."""
    wanted = limit_threads(os.environ) if threads is None else limit_threads({}, threads)
    is_read = any(os.environ.get(name) != wanted[name] for name in VARIABLES if name in wanted)
    os.environ.update(wanted)
    if is_read:  # numerical libraries have read these when they were loaded, so we begin anew
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    from ..programs import serve

    serve(model, Config.load(), spec)
