"""``top``: what a server does, again and again, until somebody presses q."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..config import Config
from ..errors import DeadlineExceeded, ServerLost
from ..operating import Operator
from ..registry import Registry
from ..survey import reach
from .dashboard import render_top
from .operators import Name, open_registry
from .output import make_console
from .rates import check_format

#: Seconds that a server has for an answer, of which people see nothing.
PATIENCE = 5.0
#: Lines of the screen that are none of a table, and tables on it.
OTHER_LINES, TABLES = 20, 3
FEWEST_LINES = 3
QUIT = "qQ\x03\x04"


def register(app: typer.Typer) -> None:
    app.command()(top)


def top(
    name: Name,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.2, metavar="S", help="Seconds between two looks.")
    ] = 2.0,
) -> None:
    """Watch a server: requests and rows a second, latencies, queue, each worker, each user. q ends it.

    Where standard output is no terminal, one table is printed, of one interval.
    """
    registry, config = open_registry()
    view = View(name, registry, config)
    console = make_console()
    try:
        view.look()
        if not console.is_terminal:
            time.sleep(interval)
            view.look()
            console.print(view.render(console.width, None))
            return
        with contextlib.suppress(KeyboardInterrupt), listen_to_keys() as wait:
            watch(view, console, interval, wait)
    finally:
        view.close()


def watch(view: View, console: Console, interval: float, wait: Callable[[float], str]) -> None:
    """Shows the server until a key of `QUIT` is pressed; ``wait`` returns what is pressed in so many seconds."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            live.update(view.render(size.width, size.height), refresh=True)
            end = time.monotonic() + interval
            while (left := end - time.monotonic()) > 0:
                if (key := wait(left)) and key in QUIT:
                    return
            try:
                view.look()
            except (ServerLost, DeadlineExceeded) as error:
                view.complain(str(error))


class View:
    """What is known of a server, which may be started again while it is watched."""

    def __init__(self, name: str, registry: Registry, config: Config) -> None:
        self._name = name
        self._registry = registry
        self._config = config
        self._operator: Operator | None = None
        self._now: dict[str, Any] | None = None
        self._before: dict[str, Any] | None = None
        self._problem = ""

    def look(self) -> None:
        """Asks the server."""
        if self._operator is None:
            self._operator = reach(self._name, self._registry, self._config, seconds=PATIENCE)
        description = check_format(self._operator.statistics())
        self._before, self._now, self._problem = self._now, description, ""

    def complain(self, problem: str) -> None:
        """The server does not answer: another look will find it again, or whoever takes its place."""
        self._problem = problem
        self.close()

    def close(self) -> None:
        if self._operator is not None:
            self._operator.close()
            self._operator = None

    def render(self, width: int, height: int | None) -> RenderableType:
        """For a screen of so many columns and lines."""
        assert self._now is not None
        lines = {} if height is None else {"most_lines": max(FEWEST_LINES, (height - OTHER_LINES) // TABLES)}
        parts = [render_top(self._now, width, self._before, **lines)]
        if self._problem:
            parts.insert(0, Text(f"{self._problem}; looking for it. What was last seen:", style="bold red"))
        return Group(*parts)


@contextlib.contextmanager
def listen_to_keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key so many seconds, and returns it, or nothing; without a keyboard it waits."""
    if not sys.stdin.isatty():
        yield _wait_without_keys
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([number], [], [], seconds)
        return (os.read(number, 1).decode(errors="replace") or QUIT[0]) if ready else ""

    try:
        tty.setcbreak(number)
        yield wait
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _wait_without_keys(seconds: float) -> str:
    time.sleep(seconds)
    return ""
