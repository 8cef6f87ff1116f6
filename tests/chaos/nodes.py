"""Two nodes and the cable between them: network namespaces that a test makes and takes away again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Addresses of documentation (RFC 5737), which lead nowhere outside of the namespaces.
NEAR_ADDRESS, FAR_ADDRESS = "192.0.2.1", "192.0.2.2"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Nodes:
    """``near`` is where this process is, ``far`` the other one; the names of their namespaces."""

    near: str
    far: str

    @property
    def there(self) -> tuple[str, ...]:
        """Words before a command that is to run on the far node."""
        return ("nsenter", f"--net=/run/netns/{self.far}")

    def cut(self) -> None:
        """Pulls the cable out, at the far end."""
        _run_ip("-n", self.far, "link", "set", "cable", "down")

    def mend(self) -> None:
        _run_ip("-n", self.far, "link", "set", "cable", "up")


def find_obstacle() -> str:
    """Why no nodes can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if missing := [command for command in ("ip", "nsenter") if shutil.which(command) is None]:
        return f"network namespaces take the commands {', '.join(missing)}"
    name = _make_name()
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""


@contextlib.contextmanager
def connected() -> Iterator[Nodes]:
    """Two nodes; this thread, and what it starts, is on the near one until the end."""
    nodes = Nodes(_make_name(), _make_name())
    try:
        for name, address in ((nodes.near, NEAR_ADDRESS), (nodes.far, FAR_ADDRESS)):
            _run_ip("netns", "add", name)
            _run_ip("-n", name, "link", "set", "lo", "up")
            if name == nodes.far:
                _run_ip("-n", nodes.near, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", nodes.far)
                for end, its_address in ((nodes.near, NEAR_ADDRESS), (nodes.far, address)):
                    _run_ip("-n", end, "address", "add", f"{its_address}/24", "dev", "cable")
                    _run_ip("-n", end, "link", "set", "cable", "up")
        with _inside(nodes.near):
            yield nodes
    finally:
        for name in (nodes.near, nodes.far):  # the cable goes with them
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextlib.contextmanager
def _inside(name: str) -> Iterator[None]:
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(Path("/run/netns") / name, os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _make_name() -> str:
    return f"demos-{os.getpid()}-{os.urandom(3).hex()}"


def _run_ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
