"""Clients that keep a server busy from processes of their own, and that may be killed or stopped (`caller`)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from caller import Findings, Orders
from serving import ServerApart

CALLER = Path(__file__).with_name("caller.py")
#: Seconds for a caller to start, its expected answers included, and to take in what is under way at its end.
STARTING, ENDING = 60.0, 90.0


class Caller:
    """One client process; ``before`` are words before its command."""

    def __init__(self, server: ServerApart, orders: Orders, before: Sequence[str] = ()) -> None:
        path = os.pathsep.join([str(CALLER.parent), server.environment["PYTHONPATH"]])
        self.process = subprocess.Popen(
            [*before, sys.executable, str(CALLER), json.dumps(asdict(orders))],
            env=server.environment | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._text = b""

    def wait_until_ready(self) -> None:
        line = self._read_line(STARTING)
        assert line == "ready", f"a caller that says {line!r} instead of ready"

    def tell(self) -> None:
        """It asks nothing more."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def finish(self, seconds: float = ENDING) -> Findings:
        """Ends it; what it has found."""
        self.tell()
        return self.wait(seconds)

    def wait(self, seconds: float = ENDING) -> Findings:
        """What it has found, once it ends by itself."""
        findings = Findings(**json.loads(self._read_line(seconds)))
        self.process.wait(seconds)
        self._close()
        return findings

    def kill(self) -> None:
        """It dies, whatever it was doing."""
        self.process.kill()
        self.process.wait()
        self._close()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_line(self, seconds: float) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._text:
            left = deadline - time.monotonic()
            assert left > 0, f"a caller has said nothing for {seconds:g} s"
            if select.select([self.process.stdout], [], [], left)[0]:
                read = os.read(self.process.stdout.fileno(), 1 << 16)
                assert read, f"a caller ended with {self.process.wait()}"
                self._text += read
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()


@contextlib.contextmanager
def calling(
    server: ServerApart, n: int = 4, *, seed: int = 0, before: Sequence[str] = (), **orders: object
) -> Iterator[list[Caller]]:
    """So many callers that are at work; those that are left are killed at the end."""
    callers = [
        Caller(server, Orders(server.name, 1000 * seed + nth, transport=server.way, **orders), before)  # type: ignore[arg-type]
        for nth in range(n)
    ]
    try:
        for caller in callers:
            caller.wait_until_ready()
        yield callers
    finally:
        for caller in callers:
            if caller.process.poll() is None:
                caller.kill()


def sum_up(all_findings: Sequence[Findings]) -> dict[str, float]:
    """The figures of several callers together; latencies are the worst of them."""
    figures: dict[str, float] = {
        name: sum(getattr(findings, name) for findings in all_findings)
        for name in ("completed", "rows", "wrong", "lost", "duplicated")
    }
    if latencies := [findings.latency for findings in all_findings if findings.latency]:
        columns = zip(*latencies, strict=True)
        figures |= {f"{name}_ms": 1e3 * max(c) for name, c in zip(("median", "p99", "worst"), columns, strict=True)}
    for findings in all_findings:
        for error, count in findings.errors.items():
            print(f"{count} x {error}", file=sys.stderr)
    return figures
