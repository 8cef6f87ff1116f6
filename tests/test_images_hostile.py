"""Images that are not what they should be, builds that go wrong, and secrets: for real, with images made in a second.

They take Apptainer, as those of test_images.py do.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from compiling import find_tool, require
from image_yard import PATIENCE, Yard
from serving import wait_until

#: Programs of the small system.
PROGRAMS = ("sh", "ls", "cat", "grep", "tr", "sleep", "touch", "env", "true")
DEFINITION = """Bootstrap: {{ BOOTSTRAP }}
From: {{ FROM }}
%labels
    org.demos-hpc.mpi-abi mpich
    org.demos-hpc.model.data [{"name": "events", "path": "/nonexistent/events.h5:/x"}]
"""
#: No process of this machine has the secret in its command line, as this sees them.
LOOKING = "if cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'sesam[e]'; then exit 9; fi"
SECRET = "sesame42"


@pytest.fixture(scope="module")
def tiny(yard: Yard, fingerprint: str) -> Path:
    """An image of 2 MB, signed by a key that small.toml trusts; tiny is its root file system."""
    root = yard.place / "tiny"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "usr"):
        (root / name).mkdir(parents=True)
    for program in PROGRAMS:
        found = Path(shutil.which(program) or program)
        shutil.copy(found, root / "bin" / program)
        libraries = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(", libraries):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    yard.own(root)
    yard.write("tiny.def", DEFINITION)
    yard.image("build", "tiny.def", "tiny.sif", "--from", "tiny")
    yard.image("sign", "tiny.sif")
    yard.write("small.toml", f'trusted = ["{fingerprint}"]\n')
    assert "good for submit" in verify(yard, "tiny.sif")
    return yard.place / "tiny.sif"


def verify(yard: Yard, name: str, status: int = 0) -> str:
    return yard.image("verify", name, status=status, DEMOS_IMAGE_POLICY=str(yard.place / "small.toml"))


def find_parts(image: Path) -> dict[str, int]:
    """A byte in the middle of each part, by the descriptors of the file (sylabs/sif, pkg/sif/descriptor.go)."""
    content = image.read_bytes()
    count, at = struct.unpack_from("<2q", content, 88)
    parts = {"script": 5, "UUID": 50, "descriptor": at + 4, "second descriptor": at + 585 + 80}
    for start in range(at, at + 585 * count, 585):
        kind, is_used, offset, size = struct.unpack_from("<i?12xqq", content, start)
        if is_used:
            parts[f"{kind:#x}"] = offset + size // 2
    assert len(parts) == 8  # definition file, labels, file system, signature
    return parts


def test_a_byte_of_each_part(yard: Yard, tiny: Path) -> None:
    for part, at in find_parts(tiny).items():
        other = yard.copy("tiny.sif", "other.sif")
        with other.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
        said = verify(yard, "other.sif", status=1)
        assert "is altered: it is not what was signed" in said or "cannot be verified" in said, (part, said)
        assert "other.sif" in yard.image("run", "other.sif", "true", status=1)


def test_what_is_not_an_image_or_not_all_of_it(yard: Yard, tiny: Path) -> None:
    size = tiny.stat().st_size
    with yard.copy("tiny.sif", "cut.sif").open("r+b") as file:
        file.truncate(size // 2)
    assert f"cut.sif is cut off after {size // 2} of {size} bytes" in yard.image("run", "cut.sif", "true", status=1)
    assert yard.run("apptainer", "sif", "new", "bare.sif").returncode == 0
    assert "bare.sif has no file system" in yard.image("run", "bare.sif", "true", status=1)
    os.mkfifo(yard.place / "pipe.sif")
    assert "pipe.sif is no image: it is no file" in yard.image("run", "pipe.sif", "true", status=1)
    assert "tiny is no image: it is no file" in yard.image("inspect", "tiny", status=1)
    address = "oras://registry.example/x:1"
    assert f"{address} is an address" in yard.image("run", address, "true", status=1)


def test_a_keyring_that_is_not_ours(yard: Yard, tiny: Path, fingerprint: str) -> None:
    """As a site's is root's: Apptainer would change its mode, and may not."""
    site = yard.place / "site-keys"
    site.mkdir(mode=0o755)
    shutil.copy(yard.place / "keys" / "pgp-public", site)
    (site / "pgp-public").chmod(0o644)
    policy = yard.write("ring.toml", f'trusted = ["{fingerprint}"]\nkeyring = "{site}"\n')
    variables = {"DEMOS_IMAGE_POLICY": str(policy), "APPTAINER_KEYSDIR": str(yard.place / "no-keys")}
    assert "good for submit" in yard.image("verify", "tiny.sif", **variables)
    assert site.stat().st_mode & 0o777 == 0o755
    policy.write_text(f'trusted = ["{fingerprint}"]\nkeyring = "/nonexistent/keys"\n', encoding="utf-8")
    said = yard.image("verify", "tiny.sif", status=1, **variables)
    assert "keyring /nonexistent/keys has no pgp-public that can be read: No such file" in said


def test_where_nothing_is_built(yard: Yard, tiny: Path) -> None:
    (yard.place / "results").mkdir()
    (yard.place / "results" / "fit.json").touch()
    yard.own(yard.place / "results")
    words = ("build", "tiny.def")
    assert "exists already" in yard.image(*words, "tiny.sif", "--from", "tiny", status=1)
    said = yard.image(*words, "results", "--from", "tiny", "--force", status=1)
    assert "results is no image, and not overwritten" in said
    assert (yard.place / "results" / "fit.json").exists()
    assert "there is no directory" in yard.image(*words, "none/x.sif", "--from", "tiny", status=1)
    said = yard.image(*words, "x.sif", "--from", "tiny", "--arg", "FORM=1", status=1)
    assert "tiny.def has no template variable FORM; it has BOOTSTRAP, FROM" in said
    assert "nobody gave: BOOTSTRAP" in yard.image(*words, "x.sif", "--arg", "FROM=", status=1)


def test_values_of_template_variables(yard: Yard, tiny: Path) -> None:
    value = 'a,b "c" = $(d) #e'
    yard.write("value.def", DEFINITION + "    value {{ VALUE }}\n")
    yard.image("build", "value.def", "value.sif", "--from", "tiny", "--arg", f"VALUE={value}")
    assert json.loads(yard.image("inspect", "value.sif", "--json"))["labels"]["value"] == value
    said = yard.image("build", "value.def", "x.sif", "--from", "tiny", "--arg", "VALUE=a\nb", status=1)
    assert "VALUE has several lines" in said


def test_a_build_that_fails_leaves_what_was_there(yard: Yard, tiny: Path) -> None:
    yard.copy("tiny.sif", "kept.sif")
    yard.write("failing.def", "Bootstrap: localimage\nFrom: tiny\n%post\n    exit 7\n")
    assert "exit status 7" in yard.image("build", "failing.def", "kept.sif", "--force", status=1)
    assert (yard.place / "kept.sif").read_bytes() == tiny.read_bytes()
    assert not list(yard.place.glob(".demos-image-*"))


def test_a_build_that_is_interrupted_leaves_nothing(yard: Yard, tiny: Path) -> None:
    going = yard.place / "tmp" / "going"
    yard.write("slow.def", "Bootstrap: localimage\nFrom: tiny\n%post\n    echo going\n    sleep 600\n")
    command = yard.command([yard.python, "-m", "demos_hpc", "image", "build", "slow.def", "slow.sif", "--verbose"])
    # As at a terminal: Ctrl-C is for all processes of the group, and where tests run in the background it is ignored.
    heard = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    with going.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", heard, *command],
            cwd=yard.place,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "\ngoing" in going.read_text(), PATIENCE, "the build is in %post")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    wait_until(lambda: not list(yard.place.glob(".demos-image-*")), PATIENCE, "what was begun is removed")
    assert not (yard.place / "slow.sif").exists()
    assert not [path.name for path in (yard.place / "tmp").iterdir() if path.name.startswith(("demos-", "build-temp"))]


def test_two_builds_of_one_image(yard: Yard, tiny: Path) -> None:
    """They do not meet: whoever ends last has built what is there."""
    build = yard.command([yard.python, "-m", "demos_hpc", "image", "build", "tiny.def", "two.sif", "--from", "tiny"])
    both = [subprocess.Popen(build, cwd=yard.place, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[1] for process in both]
    # The second may be so late that it finds the image of the first.
    assert all(process.returncode == 0 or b"exists already" in text for process, text in zip(both, said, strict=True))
    yard.image("run", "--data", "tiny.def:/nonexistent/events.h5", "two.sif", "true")


def test_a_disk_that_is_full(yard: Yard, tiny: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root")
    (yard.place / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=1m,mode=777 none {yard.place / 'disk'}"
    build = yard.command([yard.python, "-m", "demos_hpc", "image", "build", "tiny.def", "disk/x.sif", "--from", "tiny"])
    words = ["unshare", "--mount", "sh", "-c", f'{mount} && "$@"; status=$?; ls -A disk; exit $status', "sh", *build]
    done = subprocess.run(words, cwd=yard.place, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "disk/x.sif, exit status 255" in done.stderr
    assert "no space left on device" in done.stderr


def test_an_apptainer_that_is_too_old(yard: Yard, tiny: Path) -> None:
    script = yard.write("old/apptainer", "#!/bin/sh\necho apptainer version 1.0.0\n")
    script.chmod(0o755)
    path = f"{script.parent}:/usr/bin:/bin"
    said = yard.image("build", "tiny.def", "x.sif", "--from", "tiny", status=1, PATH=path)
    assert "apptainer version 1.0.0 is too old to build" in said
    assert "is it too old? apptainer version 1.0.0" in yard.image("run", "tiny.sif", "true", status=1, PATH=path)
    assert "no apptainer on the PATH" in yard.image("run", "tiny.sif", "true", status=1, PATH="/nonexistent")


def test_data_that_are_not_there(yard: Yard, tiny: Path) -> None:
    said = yard.image("run", "tiny.sif", "true", status=1)
    assert "tiny.sif declares data in /nonexistent/events.h5, which this host has not" in said
    yard.image("run", "--data", "tiny.def:/nonexistent/events.h5", "tiny.sif", "cat", "/nonexistent/events.h5")


def test_a_launcher_that_the_image_does_not_know(yard: Yard, tiny: Path) -> None:
    """Open MPI's, where the tests run with it; else its variables."""
    launcher = find_tool("mpiexec")
    there = (
        subprocess.run([launcher, "--version"], capture_output=True, text=True, check=False).stdout if launcher else ""
    )
    words = ["image", "run", "tiny.sif", "true"]
    if launcher and "Open MPI" in there:
        start = (launcher, "--oversubscribe", *["--allow-run-as-root"] * (os.geteuid() == 0), "-n", "2")
        done = yard.run(*start, yard.python, "-m", "demos_hpc", *words)
        assert done.returncode
        said = done.stderr
    else:
        told = {"PMIX_RANK": "0", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
        said = yard.image(*words[1:], status=1, **told)
    assert "started by a launcher that does not fit the MPI in tiny.sif" in said


def whisper(yard: Yard, *words: str, secrets: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`demos-hpc image …` with variables that no command line has."""
    yard.write("secrets", "".join(f"export {name}='{value}'\n" for name, value in secrets.items()))
    return yard.run("sh", "-c", '. ./secrets; exec "$@"', "sh", yard.python, "-m", "demos_hpc", "image", *words)


@pytest.mark.parametrize("kind", ["passphrase", "key"])
def test_an_encrypted_image(yard: Yard, tiny: Path, kind: str) -> None:
    """The key comes by the environment, or by a file, and is seen nowhere else."""
    require("gocryptfs", "openssl")
    path = "APPTAINER_ENCRYPTION_PEM_PATH"
    if kind == "passphrase":
        lock = key = {"APPTAINER_ENCRYPTION_PASSPHRASE": SECRET}
        wrong = {"APPTAINER_ENCRYPTION_PASSPHRASE": "other"}
    else:
        for name in ("private", "wrong"):
            yard.run("openssl", "genrsa", "-traditional", "-out", f"{name}.pem", "3072")
        yard.run("openssl", "rsa", "-in", "private.pem", "-RSAPublicKey_out", "-out", "public.pem")
        lock, key, wrong = ({path: str(yard.place / f"{name}.pem")} for name in ("public", "private", "wrong"))
    image = f"{kind}.sif"
    yard.write("closed.def", f"Bootstrap: localimage\nFrom: tiny\n%post\n    {LOOKING}\n")
    words = ("build", "closed.def", image, "--encrypt", "--verbose")
    assert "--encrypt takes a key, in APPTAINER_ENCRYPTION_PEM_PATH or" in yard.image(*words, status=1)
    built = whisper(yard, *words, secrets=lock)
    assert built.returncode == 0, built.stderr
    assert SECRET not in built.stdout + built.stderr
    seen = whisper(yard, "run", image, "sh", "-c", f"{LOOKING}; env", secrets=key)
    assert seen.returncode == 0, seen.stderr
    assert SECRET not in seen.stdout + seen.stderr
    assert "DEMOS_IMAGE_DIGEST=" in seen.stdout
    shown = whisper(yard, "run", "--dry-run", image, "true", secrets=key)
    assert SECRET not in shown.stdout + shown.stderr
    assert whisper(yard, "run", image, "true", secrets=wrong).returncode
    said = yard.image("run", image, "true", status=1)
    assert f"{image} is encrypted, and here is no key to run it with" in said
    yard.image("sign", image)  # for which no key of this kind is needed
    assert "good for submit" in verify(yard, image)


class Registry:
    """A registry with one image, ``small/system``, for those who know user and password."""

    def __init__(self, root: Path, user: str, password: str) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(root, arcname=".")
        layer = gzip.compress(packed.getvalue(), 1)
        inside = {"type": "layers", "diff_ids": [f"sha256:{sha256(packed.getvalue()).hexdigest()}"]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": inside}).encode()
        kind = "application/vnd.oci.image"
        self.blobs = {f"sha256:{sha256(blob).hexdigest()}": blob for blob in (config, layer)}
        parts = [{"digest": digest, "size": len(blob)} for digest, blob in self.blobs.items()]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {**parts[0], "mediaType": f"{kind}.config.v1+json"},
            "layers": [{**parts[1], "mediaType": f"{kind}.layer.v1.tar+gzip"}],
        }
        text = json.dumps(manifest).encode()
        expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, name = self.path.split("/")[-2:]
                if self.headers.get("Authorization") != expected:
                    self.answer(401, b"{}", ("WWW-Authenticate", 'Basic realm="small"'))
                elif kind == "manifests":
                    self.answer(200, text, ("Content-Type", manifest["mediaType"]))
                elif kind == "blobs":
                    self.answer(200, registry.blobs[name], ("Content-Type", "application/octet-stream"))
                else:
                    self.answer(200, b"{}", ("Content-Type", "application/json"))

            do_HEAD = do_GET  # noqa: N815

            def answer(self, status: int, body: bytes, header: tuple[str, object]) -> None:
                self.send_response(status)
                self.send_header(header[0], str(header[1]))
                self.send_header("Docker-Content-Digest", f"sha256:{sha256(body).hexdigest()}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                del args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"docker://127.0.0.1:{self.server.server_port}/small/system:1"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def registry(tiny: Path) -> Iterator[Registry]:
    registry = Registry(tiny.parent / "tiny", "ann", SECRET)
    yield registry
    registry.close()


def test_a_registry_that_wants_a_password(yard: Yard, tiny: Path, registry: Registry) -> None:
    yard.write("pulled.def", f"Bootstrap: {{{{ BOOTSTRAP }}}}\nFrom: {{{{ FROM }}}}\n%post\n    {LOOKING}\n")
    words = ("build", "pulled.def", "pulled.sif", "--from", registry.address, "--verbose")
    open_ = {"APPTAINER_NOHTTPS": "true", "APPTAINER_DISABLE_CACHE": "true"}
    told = {**open_, "APPTAINER_DOCKER_USERNAME": "ann", "APPTAINER_DOCKER_PASSWORD": SECRET}
    assert "unauthorized" in yard.image(*words, status=1, **open_).lower()
    built = whisper(yard, *words, secrets=told)
    assert built.returncode == 0, built.stderr
    assert SECRET not in built.stdout + built.stderr
    labels = yard.image("inspect", "pulled.sif", "--json")
    assert SECRET not in labels
    assert "system" in labels
    wrong = whisper(yard, *words, "--force", secrets={**told, "APPTAINER_DOCKER_PASSWORD": f"no-{SECRET}"})
    assert wrong.returncode == 1
    assert SECRET not in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(
    ("scanner", "status", "printed", "said"),
    [
        ("trivy", 0, "2 LOW", ""),
        ("trivy", 3, "libc6 CVE-2026-1 HIGH", "refuses"),
        ("trivy", 1, "FATAL database error", "could not scan"),
        ("grype", 0, "", ""),
        ("grype", 2, "libc6 CVE-2026-1 High", "refuses"),
        ("grype", 1, "discovered vulnerabilities at or above the severity threshold", "refuses"),
        ("grype", 1, "failed to load vulnerability db", "could not scan"),
        ("grype", 139, "\\001\\377", "could not scan"),
    ],
)
def test_scanners(yard: Yard, base_image: Path, scanner: str, status: int, printed: str, said: str) -> None:
    """They see the list, with the source packages that advisories are about."""
    text = f"""#!/bin/sh
for bill; do :; done
[ "$1" = sbom ] || bill=${{1#sbom:}}
grep -q upstream=glibc "$bill" && grep -q trivy:SrcName "$bill" || exit 8
printf '{printed}\\n'
exit {status}
"""
    script = yard.write(f"scanner-{scanner}/{scanner}", text)
    script.chmod(0o755)
    variables = {"PATH": f"{script.parent}:/usr/bin:/bin"}
    if not said:
        assert printed in yard.image("scan", str(base_image), **variables)
        return
    heard = yard.image("scan", str(base_image), status=1, **variables)
    assert f"{script} {said}" in heard
    if printed.isprintable() and "\\" not in printed:
        assert printed in heard
