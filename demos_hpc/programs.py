"""What a rank of one launch does: serve a model, or run an analysis."""

from __future__ import annotations

import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from .calling import call
from .client import RemoteModel
from .config import Config
from .connection import Connection
from .dialing import TRANSPORTS
from .dispatcher import Dispatcher
from .errors import DemosError, InvalidInput, LaunchError
from .fingerprint import describe_arithmetic
from .handover import read_description
from .journal import open_log
from .launch import Launch
from .messages import Kind, Operation
from .model import load
from .registry import Registry
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


def connect(
    name: str | None = None,
    *,
    identical: bool = False,
    transport: str = "auto",
    timeout: float | None = None,
    retries: int = 0,
    reconnect: bool = False,
) -> RemoteModel:
    """Connects to the model ``name``: its name or UUID, or that of a server; left out where there is only one.

    An analysis that was launched together with a server gets that server's models; ``timeout``, ``retries`` and
    ``reconnect`` mean nothing there. Any other process finds a running server in the registry (``DEMOS_REGISTRY``), the
    one with least to do where there are several.

    Parameters
    ----------
    identical
        Refuses workers whose CPUs or NumPy versions differ, since their results may, in the last digit.
    transport
        ``auto``; ``unix`` or ``tcp`` insist on a way through the door.
    timeout
        Seconds that a call may take, unless it says otherwise; by default ``DEMOS_TIMEOUT``.
    retries
        How often a request is tried again that the server was too busy for.
    reconnect
        Where the server is lost, waits for it or finds another, and asks again for what is unanswered.
        Arrays that were given to `submit` must then stay as they are until their answer is there.

    Raises
    ------
    LaunchError
        Where there is no server at all, or workers differ that must not.
    ServerLost
        Where no server has this model, or none answers.
    AccessRefused
        Where the server does not let this user in.
    InvalidInput
        Where no such model is served, or several and no name was given; the message names those that are.
    ModelNotFound, ModelFailed
        Where the server could not load its model.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidInput(f"retries is {retries!r}; it is how often a request is tried again, 0 or more")
    if transport not in ("auto", *TRANSPORTS):
        raise InvalidInput(f"transport is {transport!r}; it is auto, {' or '.join(TRANSPORTS)}")
    if _running and transport == "auto":
        model = _connect_within(_running[0].connect(), name)
    else:
        config = Config.load() if timeout is None else Config.load().changed(timeout=timeout)
        if not Registry(config.registry_directory).find(None):
            raise LaunchError(_describe_solitude(config))
        model = call(name, config, transport=transport, retries=retries, reconnect=reconnect)
    fingerprints = model.metadata()["fingerprints"] if identical else []
    if len(fingerprints) > 1:
        model.close()
        kinds = "; ".join(fingerprints)
        raise LaunchError(f"the workers are not alike, and results may differ in the last digit: {kinds}")
    return model


def _connect_within(connection: Connection, name: str | None) -> RemoteModel:
    """A model of this launch."""
    question = {} if name is None else {"model": name}
    description = connection.ask(Operation.METADATA, question).result()
    return RemoteModel(connection, description, owns_connection=False)


def _describe_solitude(config: Config) -> str:
    """Why there is nobody to call, and what to do."""
    script = Path(sys.argv[0]).name
    alone = f"no server runs by itself (there is none in {config.registry_directory}, DEMOS_REGISTRY)"
    if find_rank_and_size() is not None:
        return (
            f"this rank was started as `python {script}`, and has no part in the launch: start it as"
            f" `python -m demos_hpc {script}`. And {alone}: start one by `demos-hpc serve MODEL --workers 2`"
        )
    return (
        f"this process is not part of a launch, and {alone}: start a server by `demos-hpc serve MODEL --workers 2`, or"
        " both together by `demos-hpc run MODEL -- analysis.py`, or by hand"
        " `mpiexec -n 3 demos-hpc serve MODEL : -n 2 python -m demos_hpc analysis.py`; or serve the model inside this"
        " process by demos_hpc.local(model)"
    )


def refuse(why: str, config: Config) -> NoReturn:
    """Ends the launch that this rank was to be a part of: were it to leave by itself, the others would wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Launch("server", "server", config).abort(why, 2)


def serve(model: str, config: Config, spec: str = "") -> None:
    """Serves ``model`` as one rank of a launch: rank 0 dispatches, the others compute.

    With ``spec`` instead, the file that describes a program's model, this is rank 0, and the others are the program.

    Ctrl-C, which all ranks get, is for the analysis: it writes what it has, and the launch ends with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        description = read_description(spec) if spec else ""
    except DemosError as error:
        refuse(str(error), config)
    launch = Launch("server", "server", config, description)
    if description and launch.rank:
        launch.abort(
            f"{launch.name} was started with --spec, which is for the first rank alone: the workers are ranks of the"
            " program, mpiexec -n 1 demos-hpc serve --spec FILE.json : -n 4 ./program : -n 1 python -m demos_hpc"
            " analysis.py",
            2,
        )
    try:
        open_log(config, "worker" if launch.rank else "dispatcher", launch.name)
        if launch.rank == 0:
            dispatcher = Dispatcher(launch.port, config, len(launch.servers))
            for link in launch.servers:
                dispatcher.add_worker(link, launch.person_of(link))
            for link in launch.clients:
                dispatcher.add_client(link, launch.person_of(link))
            busy = dispatcher.serve(lambda: dispatcher.n_clients == 0 or dispatcher.is_deserted)
            if dispatcher.n_clients:
                launch.abort("all workers have died", 1)
            if busy:
                launch.abort(f"{', '.join(busy)} still computed what nobody waited for, and was ended", 0)
        else:
            worker = Worker(launch.name, launch.port, launch.servers[0], config=launch.config)
            worker.offer(lambda: load(model, config), describe_arithmetic())
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
