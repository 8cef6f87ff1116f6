"""What the testbed's users do, for benchmarks: their commands, bare, in an image, in a job.

And processes that sleep until they are asked to measure something, as in `stage`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from stage import ADDRESS, HERE, PEER_TIMEOUT, Peer

from demos_hpc.containers import fetch_wheels

TESTBED = Path(os.environ.get("DEMOS_TESTBED") or "/var/tmp/demos-testbed")
VENV = TESTBED / "venv" / "bin"
DEBIAN = TESTBED / "images" / "debian"
SOURCE = HERE.parent
#: What an image is built from, and what measures.
COPIED = ("apptainer", "demos_hpc", "csrc", "meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE")
MEASURING = ("stage.py", "overhead_peer.py", "lifecycle_peer.py")
#: The testbed's nodes share a kernel, and are told to use the network between them.
NETWORK = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0"}
#: Seconds for a command, and for an image to be built.
PATIENCE, BUILDING = 120.0, 600.0


@dataclass
class Yard:
    """A folder of an ordinary user of the testbed, with what it takes to build images and to measure."""

    place: Path
    user: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> Path:
        return self.place / "server.sif"

    @property
    def job(self) -> str:
        """What jobs of this benchmark are called, and no others."""
        return self.place.name

    def contain(self, *options: str) -> list[str]:
        """Begins a command that is to run in the image."""
        seen = ["--writable", str(self.place / "stage"), "--data", str(self.place / "measuring")]
        return ["demos-hpc", "image", "run", *seen, *options, str(self.image), "--"]

    def command(self, words: Sequence[str], user: str = "", **variables: str) -> list[str]:
        """The same words, said by the user."""
        user = user or self.user
        told = {
            "HOME": f"/home/{user}",
            "PATH": f"{VENV}:/usr/bin:/bin:/usr/sbin:/sbin",
            "SLURM_CONF": str(TESTBED / "slurm/slurm.conf"),
            "DEMOS_REGISTRY": str(self.place / "registry"),
            "DEMOS_ACCESS_FILE": str(TESTBED / "access.toml"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "COLUMNS": "200",
            **self.variables,
            **variables,
        }
        return ["runuser", "-u", user, "--", "env", "-i", *(f"{k}={v}" for k, v in told.items()), *words]

    def start(self, *words: str, user: str = "", **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(words, user, **variables),
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, user: str = "", timeout: float = PATIENCE, **variables: str) -> str:
        """What a command prints, which has to succeed."""
        return finish(self.start(*words, user=user, **variables), timeout)

    def clock(self, *words: str, **variables: str) -> float:
        """Seconds that a command takes."""
        begin = time.perf_counter()
        self.run(*words, **variables)
        return time.perf_counter() - begin

    def submit(self, words: Sequence[str], nodes: int, ranks: int, **variables: str) -> list[str]:
        """The command that has another one run in a job."""
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in variables.items())
        asked = ["--quiet", f"--job-name={self.job}", f"--nodes={nodes}", f"--ntasks={ranks}", "--time=15"]
        asked += [f"--output={self.place}/stage/%j.log"]
        return ["sbatch", *asked, f"--wrap={exports}exec {shlex.join(words)}"]

    @contextlib.contextmanager
    def start_peer(self, name: str, words: Sequence[str], *, job: tuple[int, int] | None = None) -> Iterator[Peer]:
        """Starts a command and waits until its measuring process has connected; ``job`` has its nodes and ranks."""
        with tempfile.TemporaryDirectory(dir=self.place / "stage") as folder, socket.socket(socket.AF_UNIX) as listener:
            os.chmod(folder, 0o755)
            address = f"{folder}/socket"
            listener.bind(address)
            os.chmod(address, 0o666)
            listener.listen()
            variables = {ADDRESS: address} | (NETWORK if job and job[0] > 1 else {})
            if job:
                words = self.submit(words, *job, **variables)
            process = subprocess.Popen(self.command(words, **variables), cwd=self.place, stdin=subprocess.DEVNULL)
            listener.settimeout(PEER_TIMEOUT)
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                process.terminate()
                raise RuntimeError(f"{name} has not started within {PEER_TIMEOUT} s: {shlex.join(words)}") from None
            connection.settimeout(PEER_TIMEOUT)
            peer = Peer(name, process, connection, polls=False)
            try:
                yield peer
            finally:
                peer.close()

    def end_jobs(self) -> None:
        """Returns once no job of ours is left."""
        self.run("scancel", "--quiet", f"--name={self.job}", user="root")
        while self.run("squeue", "-h", f"--name={self.job}"):
            time.sleep(0.2)

    def build(self, name: str = "server.sif") -> float:
        """Builds the server's image; returns the seconds, without those of the base."""
        wheels = self.place / "wheels"
        if not any(wheels.iterdir()):
            fetch_wheels(SOURCE / "apptainer" / "build-requirements.txt", wheels)
        base = DEBIAN.parent / f"base-{_name_base()}.sif"
        program = ("python", "-m", "demos_hpc", "image", "build")
        variables = {"PYTHONPATH": str(self.place / "source"), "TMPDIR": str(self.place / "tmp")}
        variables |= {"APPTAINER_TMPDIR": str(self.place / "tmp")}
        common = ("--from", str(DEBIAN), "--wheels", "wheels", "--force")
        if not base.exists():
            self.run(*program, "base", "base.sif", *common, timeout=BUILDING, **variables)
            shutil.move(self.place / "base.sif", base)
        begin = time.perf_counter()
        words = ("server", name, *common, "--arg", f"BASE={base}", "--arg", "REVISION=benchmark")
        self.run(*program, *words, timeout=BUILDING, **variables)
        return time.perf_counter() - begin


def finish(process: subprocess.Popen[str], timeout: float = PATIENCE) -> str:
    """What a process printed, which has to succeed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # not by kill, which runuser cannot pass on
        raise RuntimeError(f"not done within {timeout} s: {process.args}") from None
    if process.returncode:
        raise RuntimeError(f"{process.args}\nexit status {process.returncode}\n{out}\n{err}")
    return out


def is_up() -> bool:
    """Whether there is a testbed that we may use; says so where there is none."""
    if os.geteuid() or not (TESTBED / "site.sh").is_file():
        print("left out: it takes the testbed, and root: tests/testbed/testbed up")
        return False
    return True


@contextlib.contextmanager
def open_yard(image: Path | None = None) -> Iterator[Yard]:
    """A yard with an image in it: this one, or one that is built now."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which leaves nothing behind
    place = Path(tempfile.mkdtemp(prefix="demos-bench-", dir="/var/tmp"))
    place.chmod(0o755)
    yard = Yard(place, pwd.getpwuid(DEBIAN.stat().st_uid).pw_name)
    try:
        for name in COPIED:
            _copy(SOURCE / name, place / "source" / name)
        for name in MEASURING:
            _copy(HERE / name, place / "measuring" / name)
        for name in ("stage", "tmp", "keys", "registry", "wheels", "files"):
            (place / name).mkdir(mode=0o700 if name == "keys" else 0o755)
        (place / "registry").chmod(0o1777)
        if image is not None:
            shutil.copy(image, yard.image)
        subprocess.run(["chown", "-R", f"{yard.user}:", str(place)], check=True)
        if image is None:
            yard.build()
        yield yard
    finally:
        yard.end_jobs()
        shutil.rmtree(place)


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        to.parent.mkdir(exist_ok=True)
        shutil.copy(path, to)


def _name_base() -> str:
    """By what it is built from, as the tests of images name theirs."""
    parts = [SOURCE / "apptainer" / name for name in ("base.def", "requirements.txt")]
    return sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]
