"""Counts what running processes ask of the kernel: by perf, which hardly disturbs them, or else by strace.

Under strace a call takes so long that processes which would find what they wait for awake fall asleep; how often they
look is known by perf alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Calls that say whether something has come, and what stands behind their name where nothing has.
LOOKS, IN_VAIN = ("epoll_wait", "poll"), " in vain"
#: What perf tells apart, and the name of all else: to stop counting one call takes it 12 ms.
NAMED, OTHERS = (*LOOKS, "recvfrom", "sendto", "sendmsg", "getpid", "sched_yield", "futex", "read", "write"), "others"
#: What strace writes of a call that has returned: its name, and what it returned.
_RETURNED = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).*\) += (-?\d+)", re.MULTILINE)
#: What perf writes of an event: how often it was, and which call it is about, if it is about one.
_COUNTED = re.compile(r"^(\d+),,(?:raw_)?syscalls:sys_(enter|exit)_?(\w*),", re.MULTILINE)


def find_tool() -> str:
    """The better one that works here: perf, strace, or none: ""."""
    tries = {
        "perf": ["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"],
        "strace": ["strace", "-o", os.devnull, "true"],
    }
    for tool, command in tries.items():
        if shutil.which(tool) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return tool
    return ""


@contextlib.contextmanager
def counting(tool: str, pids: Sequence[int]) -> Iterator[list[Counter[str]]]:
    """A counter for each process, filled in at the end; looks in vain are counted apart."""
    counters: list[Counter[str]] = []
    attach, read = {"perf": (_attach_perf, _read_perf), "strace": (_attach_strace, _read_strace)}[tool]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(pid)) for pid in pids]
        with contextlib.ExitStack() as stack:
            for pid, file in zip(pids, files, strict=True):
                stack.enter_context(attach(pid, file))
            yield counters
        counters += [read(file.read_text(encoding="utf-8", errors="replace")) for file in files]


def is_waiting(call: str) -> bool:
    """Whether this is what a process does that waits: it gives its core to others, or finds that nothing has come."""
    return call == "sched_yield" or call.endswith(IN_VAIN)


@contextlib.contextmanager
def _attach_perf(pid: int, file: Path) -> Iterator[None]:
    events = ["-e", ",".join(["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{call}" for call in NAMED)])]
    for call in LOOKS:
        events += ["-e", f"syscalls:sys_exit_{call}", "--filter", "ret==0"]
    orders, orders_in = os.pipe()
    answers, answers_in = os.pipe()
    # It counts from the time when it is told to, and says when it does.
    control = ["-D", "-1", "--control", f"fd:{orders},{answers_in}"]
    command = ["perf", "stat", "-x", ",", "-o", str(file), *control, *events, "-p", str(pid)]
    with subprocess.Popen(command, pass_fds=(orders, answers_in), stderr=subprocess.DEVNULL) as perf:
        try:
            os.close(answers_in)
            os.write(orders_in, b"enable\n")
            if not os.read(answers, 16):
                raise RuntimeError(f"perf cannot look into process {pid}")
            yield
            os.write(orders_in, b"disable\n")
            os.read(answers, 16)
        finally:
            perf.send_signal(signal.SIGINT)
            for number in (orders, orders_in, answers):
                os.close(number)


def _read_perf(text: str) -> Counter[str]:
    counter: Counter[str] = Counter()
    for n, side, call in _COUNTED.findall(text):
        if side == "exit":
            counter[call + IN_VAIN] = int(n)
            counter[call] -= int(n)
        elif call:
            counter[call] += int(n)
            counter[OTHERS] -= int(n)
        else:
            counter[OTHERS] += int(n)
    return +counter


@contextlib.contextmanager
def _attach_strace(pid: int, file: Path) -> Iterator[None]:
    command = ["strace", "-f", "-s", "0", "-o", str(file), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            if "attached" not in (told := strace.stderr.readline()):
                raise RuntimeError(f"strace cannot look into process {pid}: {told}")
            yield
        finally:
            strace.terminate()


def _read_strace(text: str) -> Counter[str]:
    return Counter(call + IN_VAIN * (call in LOOKS and got == "0") for call, got in _RETURNED.findall(text))
