"""Images for real: built, tested, signed, verified, altered, refused, and serving a model.

Where DEMOS_REQUIRE names apptainer, they fail without.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from image_yard import DEBIAN, PATIENCE, Yard, inspect
from required import require
from serving import wait_until

from demos_hpc.sif import MAGIC, MAGIC_AT

LARGEST = 150e6
CALLING = """
import os, sys
import demos_hpc

with demos_hpc.connect(*sys.argv[1:], timeout=60) as model:
    print(model.log_density([[91.2]], [91.2, 2.0])[0].hex(), os.environ.get("DEMOS_IMAGE_DIGEST", "bare"))
"""
#: ln(1/pi), which is what the peak is at its top.
AT_THE_TOP = "-0x1.250d048e7a1bdp+0"


def test_a_server_is_small_and_has_no_compiler(yard: Yard, server_image: Path) -> None:
    assert server_image.stat().st_size <= LARGEST
    looking = "command -v gcc cc g++ mpicc ld pip; cat /etc/apt/*.list"
    said = yard.run("apptainer", "-s", "exec", str(server_image), "sh", "-c", looking)
    assert said.stdout.split("\n") == ["deb http://deb.debian.org/debian bookworm main", ""]
    labels = inspect(yard, server_image)["labels"]
    assert labels["org.demos-hpc.mpi-abi"] == "mpich"
    assert labels["org.opencontainers.image.revision"] == "abc"


def test_a_server_has_compiled_modules(yard: Yard, server_image: Path) -> None:
    said = yard.run("apptainer", "-s", "exec", "--cleanenv", str(server_image), "demos-hpc", "config", "--json")
    assert json.loads(said.stdout)["modules"] == "compiled"


def test_a_model_says_what_it_is(yard: Yard, peak_image: Path) -> None:
    labels = inspect(yard, peak_image)["labels"]
    ours = {name.removeprefix("org.demos-hpc."): value for name, value in labels.items()}
    assert ours["model"] == "/opt/model/my_model.py:Peak"
    assert (ours["model.name"], ours["model.version"], ours["license-class"]) == ("peak", "1.2.3", "private")
    assert json.loads(ours["model.resources"]) == {"memory": "1 GB"}
    assert "log_density" in ours["model.operations"].split()
    assert labels["org.opencontainers.image.authors"] == "A. Physicist"


def test_software_is_listed(yard: Yard, server_image: Path, peak_image: Path) -> None:
    bills = [json.loads(yard.image("sbom", str(image))) for image in (server_image, peak_image)]
    assert bills[0]["components"] == bills[1]["components"]  # a model of one file adds nothing
    found = {c["name"]: c.get("purl", "") for c in bills[0]["components"]}
    assert found["numpy"].startswith("pkg:pypi/numpy@")
    assert found["libc6"].startswith("pkg:deb/debian/libc6@")
    assert not {"gcc", "gcc-12", "pip", "meson"} & set(found)


def test_a_variable_left_out(yard: Yard) -> None:
    said = yard.image("build", "model", "x.sif", "--from", str(DEBIAN), "--model", "nu_atm", status=1)
    assert "LICENSE_CLASS (shareable, restricted or private)" in said


def test_only_what_was_signed_runs(yard: Yard, server_image: Path, peak_image: Path) -> None:
    assert "good for submit; sha256:" in yard.image("verify", str(peak_image))
    assert "is unsigned" in yard.image("verify", str(server_image), status=1)
    altered = yard.copy("peak.sif", "altered.sif")
    with altered.open("r+b") as file:
        file.seek(altered.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 255]))
    assert "is altered" in yard.image("verify", str(altered), status=1)
    assert "is altered" in yard.image("run", str(altered), "true", status=1)


def test_what_is_added_to_a_signed_image_is_seen(yard: Yard, peak_image: Path) -> None:
    added = yard.copy("peak.sif", "added.sif")
    yard.write("overlay.img", "x" * 4096)
    words = ("--datatype", "4", "--parttype", "4", "--partfs", "2", "--partarch", "2", "--groupid", "2")
    assert yard.run("apptainer", "sif", "add", *words, str(added), "overlay.img").returncode == 0
    assert "is altered" in yard.image("verify", str(added), status=1)


def test_keys_that_the_site_does_not_trust(yard: Yard, peak_image: Path) -> None:
    other = yard.write("other.toml", f'trusted = ["{"0" * 40}"]\n')
    assert "is untrusted" in yard.image("verify", str(peak_image), status=1, DEMOS_IMAGE_POLICY=str(other))
    (yard.place / "nokeys").mkdir(mode=0o700)
    yard.own(yard.place / "nokeys")
    assert "is untrusted" in yard.image(
        "verify", str(peak_image), status=1, APPTAINER_KEYSDIR=str(yard.place / "nokeys")
    )


def test_an_expired_key(yard: Yard, server_image: Path) -> None:
    """Made in the past, and its end said later: what signs does not know of it, who verifies does."""
    require("gpg")
    ring = yard.place / "gnupg"
    ring.mkdir(mode=0o700)
    yard.own(ring)
    gpg = ("gpg", "--homedir", str(ring), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback")
    made = (
        "--faked-system-time",
        "20200101T000000",
        "--quick-generate-key",
        "old@b.example",
        "rsa3072",
        "sign",
        "never",
    )
    assert yard.run(*gpg, *made).returncode == 0
    listed = yard.run(*gpg, "--list-keys", "--with-colons").stdout
    key = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    for name in ("signing", "verifying"):
        (yard.place / name).mkdir(mode=0o700)
        yard.own(yard.place / name)
    signing, verifying = str(yard.place / "signing"), str(yard.place / "verifying")
    yard.run(*gpg, "--armor", "--output", str(yard.place / "secret.asc"), "--export-secret-keys", key)
    imported = yard.run("apptainer", "key", "import", "secret.asc", APPTAINER_KEYSDIR=signing)
    assert imported.returncode == 0, imported.stderr
    yard.copy("server.sif", "old.sif")
    yard.image("sign", "old.sif", APPTAINER_KEYSDIR=signing)
    policy = str(yard.write("old.toml", f'trusted = ["{key}"]\n'))
    assert "good for submit" in yard.image("verify", "old.sif", APPTAINER_KEYSDIR=signing, DEMOS_IMAGE_POLICY=policy)
    assert yard.run(*gpg, "--faked-system-time", "20200102T000000", "--quick-set-expire", key, "1d").returncode == 0
    assert yard.run(*gpg, "--armor", "--output", str(yard.place / "public.asc"), "--export", key).returncode == 0
    assert yard.run("apptainer", "key", "import", "public.asc", APPTAINER_KEYSDIR=verifying).returncode == 0
    said = yard.image("verify", "old.sif", status=1, APPTAINER_KEYSDIR=verifying, DEMOS_IMAGE_POLICY=policy)
    assert "is expired" in said
    yard.run("gpgconf", "--homedir", str(ring), "--kill", "all")


def test_an_image_for_another_processor(yard: Yard, peak_image: Path) -> None:
    other = yard.copy("peak.sif", "arm.sif")
    with other.open("r+b") as file:
        file.seek(MAGIC_AT + len(MAGIC) + 3)
        file.write(b"04\0")
    assert "is for another processor" in yard.image("run", str(other), "true", status=1)


def test_what_is_no_image(yard: Yard) -> None:
    text = yard.write("text.sif", "no image")
    assert "is no image" in yard.image("verify", str(text), status=1)
    assert "cannot be read: No such file" in yard.image("verify", "none.sif", status=1)


def test_a_scanner_that_a_site_has(yard: Yard, peak_image: Path) -> None:
    assert "there is no scanner" in yard.image("scan", str(peak_image), status=1)
    script = yard.write("bin/grype", '#!/bin/sh\ngrep -q numpy "${1#sbom:}" && echo "numpy: CVE, $4" && exit $FOUND\n')
    script.chmod(0o755)
    path = f"{script.parent}:/usr/bin:/bin"
    assert "numpy: CVE, critical" in yard.image("scan", str(peak_image), "--fail-on", "critical", PATH=path, FOUND="0")
    assert "refuses" in yard.image("scan", str(peak_image), status=1, PATH=path, FOUND="2")


def test_ranks_in_containers_of_one_launch(yard: Yard, peak_image: Path) -> None:
    """The hybrid way: the launcher outside, MPICH inside; a client among them."""
    require("mpiexec")
    script = yard.write("calling.py", CALLING)
    inside = (yard.python, "-m", "demos_hpc", "image", "run", "--for", "submit", "--data", str(script), str(peak_image))
    server = ("-n", "3", *inside, "demos-hpc", "serve", "/opt/model/my_model.py:Peak")
    client = ("-n", "1", *inside, "python", "-m", "demos_hpc", str(script))
    done = yard.run("mpiexec", *server, ":", *client)
    assert done.stdout.split() == [AT_THE_TOP, inspect(yard, peak_image)["digest"]], done.stderr


def test_worlds_of_one_rank_are_explained(yard: Yard, peak_image: Path) -> None:
    """As under a launcher that the MPI inside does not know."""
    words = ("run", str(peak_image), "demos-hpc", "serve", "/opt/model/my_model.py:Peak")
    variables = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    said = yard.image(*words, status=2, **variables)
    assert "each of them is an MPI world of its own" in said
    assert "that of the image, which the launcher outside has to fit" in said


def test_a_server_in_an_image_and_a_client_outside(yard: Yard, peak_image: Path) -> None:
    script, audit = yard.write("calling.py", CALLING), yard.place / "audit" / "audit.jsonl"
    audit.parent.mkdir()
    yard.own(audit.parent)
    words = (yard.python, "-m", "demos_hpc", "image", "run", "--for", "submit", str(peak_image))
    serving = ("demos-hpc", "serve", "/opt/model/my_model.py:Peak", "--name", "inside", "--workers", "2")
    command = yard.command([*words, *serving], DEMOS_AUDIT_FILE=str(audit))
    with subprocess.Popen(command, cwd=yard.place, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_until(
                lambda: list((yard.place / "registry").glob("*.json")), PATIENCE, "the server is in the registry"
            )
            done = yard.run(yard.python, str(script), "inside")
            listed = json.loads(yard.run(yard.python, "-m", "demos_hpc", "ls", "--json").stdout)
            assert yard.run(yard.python, "-m", "demos_hpc", "stop", "inside", "--wait").returncode == 0
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
    digest = inspect(yard, peak_image)["digest"]
    assert done.stdout.split() == [AT_THE_TOP, "bare"], done.stderr
    assert [endpoint["image"] for endpoint in listed] == [digest]
    lines = [json.loads(line) for line in audit.read_text(encoding="utf-8").splitlines()]
    assert {line["image"] for line in lines} == {digest}
    assert "log_density" in {line["what"] for line in lines}
