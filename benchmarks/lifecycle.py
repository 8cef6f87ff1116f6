"""How soon is a server there, and what does it live through: submitted, scaled, cut off, requeued, called by many?

    python benchmarks/lifecycle.py [--quick] [--image server.sif] [--part NAME ...] [--json FILE]

On the testbed (tests/testbed/testbed up), as root; everything is done by its users' own commands, in Slurm jobs, with
servers in a signed image. Answers are held against those computed without a server, to the last bit.

Fair shares: two users hand in 25 jobs each at the same moment, with the same work; of one user's jobs each keeps
eight requests in flight, of the other's one. Both begin when ten of each, which is as many as Slurm runs at a time, are
connected. When the first of the two has half of all its rows, `fair_share` is the rows of the one that has fewer over
those of the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Self

from harness import describe_machine, print_table, report
from overhead_peer import EVENTS
from stage import Peer
from testbed import TESTBED, Yard, finish, is_up, open_yard

USERS = "alice", "bob"
#: Calls of a fit, and after how many of them something happens to it.
CALLS, MIDDLE = 600, 100
#: Jobs of each user, how many of them run at a time, likelihoods of each, and how many it keeps in flight, by user.
JOBS, AT_ONCE, LIKELIHOODS, IN_FLIGHT = 25, 10, 120, (8, 1)
LOOK = 0.05
#: Seconds for anything to happen.
PATIENCE = 180.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once each, and the image is built once")
    parser.add_argument("--image", type=Path, help="server.sif; else one is built")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all unless given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all that was found is kept")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    if not is_up():
        report("lifecycle", found)
        return
    with open_yard(arguments.image) as yard:
        site = Site(yard, quick=arguments.quick)
        for part in arguments.part or PARTS:
            begin = time.perf_counter()
            figures = PARTS[part](site)
            print_table(
                [f"{part} ({time.perf_counter() - begin:.0f} s)", ""],
                [(key, f"{value:.4g}") for key, value in figures.items()],
            )
            found |= figures
    if arguments.json:
        kept = {"machine": describe_machine(), "figures": found}
        arguments.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    report("lifecycle", found)


class Site:
    """The testbed as a site with an image policy of its own, and a registry that nobody else uses."""

    def __init__(self, yard: Yard, *, quick: bool) -> None:
        self.yard = yard
        self.quick = quick
        self.rounds = 1 if quick else 3
        self._sign()
        text = (TESTBED / "site.sh").read_text(encoding="utf-8")
        names = ("DEMOS_REGISTRY", "DEMOS_IMAGE_POLICY", "APPTAINER_KEYSDIR")
        settings = {name: yard.variables.get(name, str(yard.place / "registry")) for name in names}
        exports = "".join(f"export {name}={value}\n" for name, value in settings.items())
        (yard.place / "site.sh").write_text(f"{text}{exports}", encoding="utf-8")
        yard.variables["DEMOS_SITE"] = str(yard.place / "site.sh")
        self.script = str(yard.place / "measuring" / "lifecycle_peer.py")

    def _sign(self) -> None:
        """With a key that this site trusts."""
        yard = self.yard
        yard.variables["APPTAINER_KEYSDIR"] = str(yard.place / "keys")
        words = ("--name", "A", "--email", "a@b.example", "--comment", "", "--password", "", "--push=false")
        yard.run("apptainer", "key", "newpair", *words)
        said = yard.run("apptainer", "key", "list")
        key = next(line.split(":")[1].strip() for line in said.splitlines() if "Fingerprint" in line)
        policy = yard.place / "policy.toml"
        policy.write_text(f'trusted = ["{key}"]\n', encoding="utf-8")
        yard.variables["DEMOS_IMAGE_POLICY"] = str(policy)
        yard.run("demos-hpc", "image", "sign", str(yard.image))

    def compute_alone(self, what: str, calls: int) -> list[str]:
        """What a user of the testbed gets without any server; bits are those of a processor and its libraries."""
        return self.yard.run("python", self.script, f"{what}-alone", str(calls)).split()

    @contextlib.contextmanager
    def serve(self, workers: int, nodes: int, *options: str) -> Iterator[Server]:
        """A server in a job, in the image; ``seconds`` is what it took until its door answered."""
        name = f"life-{time.monotonic_ns() % 1000000}"
        words = ("submit", "serve", "nu_atm", "--name", name, "--time", "15", "--json")
        asked = ("--workers", str(workers), "--nodes", str(nodes), "--image", str(self.yard.image), *options)
        begin = time.perf_counter()
        said = self.yard.run("demos-hpc", *words, *asked)
        seconds = time.perf_counter() - begin
        try:
            yield Server(self, name, json.loads(said[said.index("{") :])["job"], seconds)
        finally:
            for job in (name, f"{name}:workers"):
                self.yard.run("scancel", "--quiet", f"--name=demos:{job}")
            wait_until(lambda: not self.yard.run("squeue", "-h", f"--name=demos:{name},demos:{name}:workers"))


class Server:
    """One that runs."""

    def __init__(self, site: Site, name: str, job: str, seconds: float) -> None:
        self.site = site
        self.name = name
        self.job = job
        self.seconds = seconds

    def watch(self) -> contextlib.AbstractContextManager[Peer]:
        return self.site.yard.start_peer("watch", ["python", self.site.script, "watch", self.name])

    def wait_for_workers(self, n: int) -> None:
        with self.watch() as watcher:
            wait_until(lambda: sum(worker["is_alive"] for worker in watcher.ask("look")["workers"]) == n)

    def start_fit(self, calls: int = CALLS) -> Fit:
        return Fit(self.site.yard.start("python", self.site.script, "fit", self.name, str(calls), user=USERS[1]))


class Fit:
    """A fit of another user that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_for_call(self, nth: int) -> Self:
        """Returns once so many calls are answered."""
        assert self.process.stdout is not None
        for _ in range(nth):
            if not self.process.stdout.readline():
                finish(self.process)
        return self

    def finish(self) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.read().split()  # not by `communicate`, which loses what is read ahead
        finish(self.process)
        return words


def wait_until(is_so: Any, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"not so after {seconds:g} s")
        time.sleep(LOOK)


# ---- parts --------------------------------------------------------------------------------------------------------


def measure_image(site: Site) -> dict[str, float]:
    """Its size, and whether the same inputs give the same software."""
    yard = site.yard
    lists, seconds = [json.loads(yard.run("demos-hpc", "image", "sbom", str(yard.image)))["components"]], []
    for name in ["again.sif"] if site.quick else ["again.sif", "once-more.sif"]:
        seconds.append(yard.build(name))
        lists.append(json.loads(yard.run("demos-hpc", "image", "sbom", str(yard.place / name)))["components"])
    return {
        "server_sif_mb": yard.image.stat().st_size / 1e6,
        "rebuilt_same_list": float(all(one == lists[0] for one in lists)),
        "packages": len(lists[0]),
        "build_s": median(seconds),
    }


def measure_readiness(site: Site) -> dict[str, float]:
    """From the command to the door, on three nodes; and from `scale` to a chunk of a new worker."""
    ready, scaled = [], []
    for _ in range(site.rounds):
        with site.serve(3, 3) as server:
            ready.append(server.seconds)
    for _ in range(site.rounds):
        with site.serve(2, 2) as server, server.watch() as watcher:
            fits = [server.start_fit(100000).wait_for_call(1) for _ in range(8)]
            begin = time.perf_counter()
            site.yard.run("demos-hpc", "scale", server.name, "--workers", "6")
            wait_until(lambda watcher=watcher: count_new(watcher.ask("look")) > 0)
            scaled.append(time.perf_counter() - begin)
            for fit in fits:
                fit.process.terminate()  # not by kill, which runuser cannot pass on
                fit.process.communicate(timeout=PATIENCE)
    return {"submit_to_ready_s": median(ready), "scale_to_chunk_s": median(scaled)}


def count_new(description: dict[str, Any]) -> int:
    """Chunks of workers that have jobs of their own."""
    return sum(worker["chunks"] for worker in description["workers"] if worker["name"].startswith("slurm:"))


def measure_cut(site: Site) -> dict[str, float]:
    """A node whose worker joined through the door is cut off in mid-fit."""
    link = ("ip", "-n", "demo3", "link", "set", "eth0")
    with site.serve(3, 3) as server:
        server.wait_for_workers(3)
        fits = [server.start_fit() for _ in range(3)]
        for fit in fits:
            fit.wait_for_call(MIDDLE)
        subprocess.run([*link, "down"], check=True)
        try:
            begin = time.perf_counter()
            ends = [fit.finish() for fit in fits]
            seconds = time.perf_counter() - begin
            server.wait_for_workers(2)
        finally:
            subprocess.run([*link, "up"], check=True)
            # The way to the machine itself goes with the link.
            subprocess.run(["ip", "-n", "demo3", "route", "replace", "default", "via", "10.77.13.1"], check=True)
        server.wait_for_workers(3)
    right = site.compute_alone("fit", CALLS)
    return {"cut_same_bits": float(all(end == right for end in ends)), "cut_rest_of_fit_s": seconds}


def measure_requeue(site: Site) -> dict[str, float]:
    """The server's job is requeued in mid-fit; the client has said `reconnect=True`."""
    with site.serve(2, 2, "--requeue") as server:
        fit = server.start_fit().wait_for_call(MIDDLE)
        begin = time.perf_counter()
        site.yard.run("scontrol", "requeue", server.job)
        end = fit.finish()
        seconds = time.perf_counter() - begin
        restarts = site.yard.run("scontrol", "show", "job", "-o", server.job)
        assert "Restarts=1" in restarts, restarts
    return {"requeue_same_bits": float(end == site.compute_alone("fit", CALLS)), "requeue_rest_of_fit_s": seconds}


def measure_many(site: Site) -> dict[str, float]:
    """Fifty analysis jobs of two users."""
    yard, folder = site.yard, site.yard.place / "jobs"
    folder.mkdir()
    folder.chmod(0o1777)
    with site.serve(2, 2) as server, server.watch() as watcher:
        server.wait_for_workers(2)
        for user, in_flight in zip(USERS, IN_FLIGHT, strict=True):
            words = f"python {site.script} job {server.name} {LIKELIHOODS} {in_flight} {folder}"
            asked = [
                f"--job-name={yard.job}",
                f"--array=1-{JOBS}%{AT_ONCE}",
                "--time=15",
                f"--output={folder}/%A_%a.log",
            ]
            yard.run("sbatch", "--quiet", *asked, f"--wrap=. {yard.place}/site.sh; exec {words}", user=user)
        wait_until(lambda: [look(watcher)[user]["clients"] for user in USERS] == [AT_ONCE, AT_ONCE])
        before = {user: look(watcher)[user]["rows"] for user in USERS}
        (folder / "go").touch()
        begin = time.perf_counter()
        half = JOBS * LIKELIHOODS * EVENTS / 2
        rows = dict.fromkeys(USERS, 0)
        while max(rows.values()) < half:
            time.sleep(LOOK)
            counted = look(watcher)
            rows = {user: counted[user]["rows"] - before[user] for user in USERS}
        wait_until(lambda: len(list(folder.glob("*.done"))) == 2 * JOBS)
        seconds = time.perf_counter() - begin
    with_answers = [path.read_text(encoding="utf-8").split() for path in folder.glob("*.done")]
    right = site.compute_alone("job", LIKELIHOODS)
    return {
        "jobs_served": float(sum(values == right for _, *values in with_answers)),
        "fair_share": min(rows.values()) / max(rows.values()),
        "jobs_s": seconds,
        "jobs_rows_per_s": 2 * half * 2 / seconds,
    }


def look(watcher: Peer) -> dict[str, dict[str, Any]]:
    """What the server counts of each user."""
    counted = {user["user"]: user for user in watcher.ask("look")["users"]}
    return {user: counted.get(user, {"clients": 0, "rows": 0}) for user in USERS}


PARTS = {
    "image": measure_image,
    "ready": measure_readiness,
    "cut": measure_cut,
    "requeue": measure_requeue,
    "many": measure_many,
}

if __name__ == "__main__":
    os.umask(0o022)
    main()
