"""What a rank of one launch does: serve a model, or run an analysis."""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from .client import RemoteModel
from .config import Config
from .connection import Connection
from .dispatcher import Dispatcher
from .errors import DemosError, LaunchError
from .fingerprint import describe_arithmetic
from .launch import Launch
from .messages import Kind, Operation
from .model import load
from .transport import LONGEST_WAIT
from .watchdog import find_rank_and_size
from .wire import Frame, pack
from .worker import Worker


class Analysis:
    """The analysis that runs in this process, as `connect` needs it."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.connection: Connection | None = None

    def connect(self) -> Connection:
        if self.connection is None:
            self.connection = Connection(self.launch.port, self.launch.servers[0], self.launch.config)
        return self.connection


#: There is one analysis in a process, and a script has no other way to find it.
_running: list[Analysis] = []


def connect(name: str | None = None, *, identical: bool = False) -> RemoteModel:
    """Connects to the model ``name`` (its name or UUID; may be left out where there is only one) of this launch.

    ``identical=True`` refuses workers whose CPUs or NumPy versions differ, since their results may, in the last digit.

    Raises
    ------
    LaunchError
        Where this process was not started by the launcher, or workers differ that must not.
    InvalidInput
        Where no such model is served; the message names those that are.
    ModelNotFound, ModelFailed
        Where the server could not load its model.
    """
    if not _running and find_rank_and_size() is not None:
        raise LaunchError(
            f"this rank was started as `python {Path(sys.argv[0]).name}`, and has no part in the launch: start it as"
            f" `python -m demos_hpc {Path(sys.argv[0]).name}`"
        )
    if not _running:
        raise LaunchError(
            "this process is not part of a launch: start it by `demos-hpc run MODEL -- analysis.py`, or by hand"
            " `mpiexec -n 3 demos-hpc serve MODEL : -n 2 python -m demos_hpc analysis.py`; or serve the model inside"
            " this process by demos_hpc.local(model)"
        )
    connection = _running[0].connect()
    question = {} if name is None else {"model": name}
    description = connection.ask(Operation.METADATA, question).result()
    if identical and len(description["fingerprints"]) > 1:
        kinds = "; ".join(description["fingerprints"])
        raise LaunchError(f"the workers are not alike, and results may differ in the last digit: {kinds}")
    return RemoteModel(connection, description, owns_connection=False)


def serve(model: str, config: Config) -> None:
    """Serves ``model`` as one rank of a launch: rank 0 dispatches, the others compute."""
    launch = Launch("server", "server", config)
    try:
        if launch.rank == 0:
            dispatcher = Dispatcher(launch.port, config, len(launch.servers))
            for link in launch.servers:
                dispatcher.add_worker(link, launch.person_of(link))
            for link in launch.clients:
                dispatcher.add_client(link, launch.person_of(link))
            if busy := dispatcher.serve(lambda: dispatcher.n_clients == 0):
                launch.abort(f"{', '.join(busy)} still computed what nobody waited for, and was ended", 0)
        else:
            worker = Worker(launch.name, launch.port, launch.servers[0])
            worker.offer(lambda: load(model), describe_arithmetic())
            worker.serve()
    except BaseException:
        traceback.print_exc()
        launch.abort(f"the server's {launch.name} failed", 1)
    launch.leave()


def is_analysis() -> bool:
    """Whether this process is an analysis of a launch, so that `connect` finds the models that are served there."""
    return bool(_running)


def run_analysis(command: list[str], config: Config) -> None:
    """Runs an analysis as one rank of a launch, as ``python command`` would.

    ``command`` is a script and its arguments, or ``-m``, a module and its arguments.
    """
    launch = Launch("client", " ".join(command), config)
    analysis = Analysis(launch)
    _running.append(analysis)
    script = " ".join(command[: 1 + (command[0] == "-m")])
    if command[0] != "-m" and not Path(script).is_file():
        launch.abort(f"there is no script {script!r} (from {Path.cwd()})", 2)
    try:
        _run(command)
    except SystemExit as error:
        if error.code not in (None, 0):
            _give_up(launch, script, error)
    except BaseException as error:
        _show_traceback(error)
        _give_up(launch, script, error)
    if analysis.connection is None:
        print(
            f"demos-hpc: {script} ended on {launch.name} and never called demos_hpc.connect(): the server had nothing"
            " to do for it",
            file=sys.stderr,
            flush=True,
        )
    _say_goodbye(launch)
    launch.leave()


def _run(command: list[str]) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        runpy.run_path(command[0], run_name="__main__")


def _show_traceback(error: BaseException) -> None:
    """The script's own traceback, as without us."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _give_up(launch: Launch, script: str, error: BaseException) -> NoReturn:
    code = 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        why = f"exited with status {code}" if isinstance(error.code, int) else f"exited: {error.code}"
    else:
        why = f"raised {type(error).__name__}"
    launch.abort(f"{script} {why} on {launch.name}; the launch ends for all ranks", code)


def _say_goodbye(launch: Launch) -> None:
    """Waits until all others are done as well; without using the processor."""
    launch.servers[0].send(pack(Kind.GOODBYE))
    while True:
        arrivals = launch.port.receive()
        for _, arrived in arrivals:
            if isinstance(arrived, DemosError):
                raise arrived
            if isinstance(arrived, Frame) and arrived.header.kind == Kind.END:
                return
        if not arrivals:
            launch.port.wait(LONGEST_WAIT)
