"""Apptainer at work: images built, looked into, signed, verified and scanned. The only module that imports spython."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import AccessRefused, InvalidInput, LaunchError
from .image_labels import OCI
from .image_policy import Flaw, Judgment, Policy, Signature, find_flaws, judge
from .sif import SifFile, find_architecture, is_sif, read_sif
from .software import DPKG, PIP, SYSTEM, make_bill, read_packages

#: Names that the program goes by.
PROGRAMS = ("apptainer", "singularity")
#: What builds images of definition files with template variables: from this version on.
BUILDING = {"apptainer": (1, 2), "singularity-ce": (4, 0)}
#: By which Apptainer is given the key of an encrypted image: a file, or a passphrase.
KEYS = ("APPTAINER_ENCRYPTION_PEM_PATH", "APPTAINER_ENCRYPTION_PASSPHRASE")
#: The file of a keyring with public keys.
PUBLIC_KEYS = "pgp-public"
#: Where Apptainer has tried without, and failed in words that do not tell.
NO_SUBUID = (
    "You have no line in /etc/subuid and /etc/subgid, which builds take: `usermod --add-subuids` makes one, by root"
)
#: Lines of a failed build that are shown.
LAST_LINES = 30
#: From harmless to not.
SEVERITIES = ("low", "medium", "high", "critical")
SCANNERS = ("trivy", "grype")
#: Exit statuses where there are findings: that of grype, and the one that trivy is given. 1 is any error.
FOUND = (2, 3)


def find_program() -> str:
    """Apptainer's command, by its path.

    Raises
    ------
    LaunchError
        Where there is none.
    """
    for name in PROGRAMS:
        if path := shutil.which(name):
            return path
    raise LaunchError(
        "there is no apptainer on the PATH: load your site's module, or install it (https://apptainer.org/docs/admin);"
        " without images, `demos-hpc serve` runs in any Python environment"
    )


def check_version(said: str) -> None:
    """`LaunchError` where ``apptainer --version`` says that it is too old to build our images."""
    found = re.match(r"(\S+) version (\d+)\.(\d+)", said)
    wanted = BUILDING.get(found[1], BUILDING["singularity-ce"]) if found else None
    if found and wanted and (int(found[2]), int(found[3])) < wanted:
        raise LaunchError(
            f"{said.strip()} is too old to build: apptainer 1.2 or later knows template variables; load another module"
        )


def needs_userns(status: str | None = None) -> bool:
    """Whether Apptainer has to go without privileges: where root lacks a capability, as in most containers.

    ``status`` is the text of /proc/self/status.
    """
    text = Path("/proc/self/status").read_text(encoding="ascii") if status is None else status
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if said["Uid"].split()[1] != "0":
        return False
    last = Path("/proc/sys/kernel/cap_last_cap")
    wanted = (1 << (int(last.read_text(encoding="ascii")) + 1)) - 1 if last.exists() else 0
    return int(said["CapPrm"], 16) & wanted != wanted


def build(
    definition: Path,
    image: Path,
    arguments: Mapping[str, str],
    say: Callable[[str], None],
    *,
    overwrite: bool = False,
    encrypt: bool = False,
) -> None:
    """Builds an image, which is there once all of it is; ``say`` hears each line as it comes.

    Raises
    ------
    LaunchError
        Where Apptainer fails, with its last lines.
    """
    from spython.utils import stream_command

    check_output(image, overwrite=overwrite)
    program = find_program()
    check_version(run([program, "--version"])[1])
    command = [program, "build"]
    if os.geteuid() != 0:
        command.append("--fakeroot")
    elif needs_userns():
        raise LaunchError("this root lacks capabilities, as in containers, and cannot build: do it as another user")
    if encrypt:
        if not find_keys(os.environ):
            raise InvalidInput(
                f"--encrypt takes a key, in {' or '.join(KEYS)}: the path of a public key, or the secret"
            )
        command.append("--encrypt")
    if broken := [name for name, value in arguments.items() if "\n" in value]:
        raise InvalidInput(f"{broken[0]} has several lines: a template variable is one")
    lines: list[str] = []
    # Beside it, and of a name of its own: two builds do not meet, and what is interrupted leaves no half image.
    with tempfile.TemporaryDirectory(prefix=".demos-image-", dir=image.absolute().parent) as place:
        new, told = Path(place) / image.name, Path(place) / f"{image.name}.arguments"
        # In a file: on its command line Apptainer splits them at commas.
        told.write_text("".join(f"{name}={value}\n" for name, value in arguments.items()), encoding="utf-8")
        command += ["--build-arg-file", str(told), str(new), str(definition)]
        try:
            for line in stream_command(command, output_type="both"):
                lines.append(line.rstrip())
                say(lines[-1])
        except subprocess.CalledProcessError as error:
            hint = [NO_SUBUID] if any("/etc/subuid" in line for line in lines) else []
            text = "\n".join([*lines[-LAST_LINES:], *hint])
            raise LaunchError(
                f"{definition} was not built into {image}, exit status {error.returncode}:\n{text}"
            ) from None
        new.replace(image)


def check_output(image: Path, *, overwrite: bool) -> None:
    """`InvalidInput` where no image can be built there, before it takes long to find out."""
    folder = image.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(f"{image} cannot be written: there is no directory {folder}")
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"{image} cannot be written: {folder} is not yours to write to")
    if image.exists() and not overwrite:
        raise InvalidInput(f"{image} exists already: choose another name, or overwrite it by --force")
    if image.exists() and not is_sif(image):
        raise InvalidInput(f"{image} is no image, and not overwritten: choose another name")


def find_keys(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that hold a key for encrypted images, or say where it is."""
    return [name for name in KEYS if environment.get(name)]


def fetch_wheels(requirements: Path, directory: Path, python: str = "3.11") -> None:
    """Fetches what images have from PyPI, by the index and the settings that pip has on this machine.

    Raises
    ------
    LaunchError
        Where pip cannot, with its own words.
    """
    pip = [*(["python3", "-m", "pip"] if shutil.which("python3") else ["pip"])]
    words = ["download", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--python-version", python]
    status, text = run([*pip, *words, "--no-deps", "--dest", str(directory), "--requirement", str(requirements)])
    if status:
        raise LaunchError(f"pip could not fetch {requirements}:\n{text}")


def read_labels(image: Path) -> dict[str, str]:
    """The labels of an image."""
    status, text = run([find_program(), "inspect", "--json", "--labels", str(image)])
    if status:
        raise InvalidInput(f"{image} cannot be inspected: {text.strip()}")
    labels = _find_json(text)["data"]["attributes"].get("labels") or {}
    return {str(name): str(value) for name, value in labels.items()}


def run_inside(image: Path, command: Sequence[str]) -> str:
    """What a command prints that runs in an image and sees nothing of the host."""
    options = ["--userns"] if needs_userns() else []
    words = [find_program(), "--silent", "exec", "--containall", "--cleanenv", *options, str(image), *command]
    status, text = run(words)
    if status:
        raise LaunchError(f"{' '.join(command[:2])} failed in {image}, exit status {status}: {text.strip()}")
    return text


def list_software(image: Path) -> dict[str, Any]:
    """What is installed in an image, in CycloneDX; the same for the same software."""
    try:
        packages = read_packages(run_inside(image, DPKG), run_inside(image, PIP))
    except LaunchError as error:
        raise LaunchError(f"{error}. Software is listed of images that begin with base.sif") from None
    title = read_labels(image).get(f"{OCI}title", image.stem)
    return make_bill(title, run_inside(image, SYSTEM), packages)


def scan(image: Path, threshold: str, path: str | None = None) -> str:
    """What the site's scanner says of an image's software.

    Raises
    ------
    AccessRefused
        Where it finds something of this severity or worse, with what it found.
    LaunchError
        Where the site has no scanner, or it fails.
    """
    if threshold not in SEVERITIES:
        raise InvalidInput(f"severity {threshold!r}; there are {', '.join(SEVERITIES)}")
    scanner = next((found for name in SCANNERS if (found := shutil.which(name, path=path))), None)
    if scanner is None:
        raise LaunchError(
            "there is no scanner on the PATH: install trivy (https://trivy.dev) or grype"
            " (https://github.com/anchore/grype), or give `demos-hpc image sbom` to the one that your site has"
        )
    with tempfile.TemporaryDirectory(prefix="demos-scan-") as directory:
        bill = Path(directory) / "bill.cdx.json"
        bill.write_text(json.dumps(list_software(image)), encoding="utf-8")
        status, text = run(make_scan(scanner, bill, threshold))
    if status in FOUND or "severity threshold" in text:  # which older versions of grype say, with status 1
        raise AccessRefused(f"{scanner} refuses {image} (findings of severity {threshold} or worse):\n{text.strip()}")
    if status:
        raise LaunchError(
            f"{scanner} could not scan {image}, exit status {status}, which says nothing of it:\n{text.strip()}"
        )
    return text


def make_scan(scanner: str, bill: Path, threshold: str) -> list[str]:
    """The command whose exit status is one of `FOUND` above a threshold."""
    if Path(scanner).name == "trivy":
        worse = ",".join(name.upper() for name in SEVERITIES[SEVERITIES.index(threshold) :])
        return [scanner, "sbom", "--quiet", "--exit-code", str(FOUND[1]), "--severity", worse, str(bill)]
    return [scanner, f"sbom:{bill}", "--quiet", "--fail-on", threshold]


def sign(image: Path, key_file: Path | None = None, key_index: int | None = None) -> None:
    """Signs an image: with a key of the keyring, or of a PEM file; a passphrase is asked for at the terminal."""
    read_sif(image)
    words = [find_program(), "sign"]
    if key_file is not None:
        if not key_file.is_file():
            raise InvalidInput(f"there is no key {key_file}")
        words += ["--key", str(key_file)]
    if key_index is not None:
        words += ["--keyidx", str(key_index)]
    # Not through spython, which would keep the question for the passphrase from the terminal.
    done = subprocess.run([*words, str(image)], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise LaunchError(
            f"{image} was not signed: {done.stderr.strip()}. Keys are made by `apptainer key newpair`, and listed by"
            " `apptainer key list --secret`"
        )


def read_signatures(image: Path, keyring: str = "") -> tuple[Signature, ...]:
    """The signatures of an image, as Apptainer judges them by the public keys of a keyring; "" is the user's own.

    Raises
    ------
    InvalidInput
        Where the keyring cannot be read, or the image is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="demos-keys-") as place:
        environment = dict(os.environ)
        if keyring:
            # A copy: Apptainer wants to own the directory, and a site's is root's.
            try:
                shutil.copyfile(Path(keyring, PUBLIC_KEYS), Path(place, PUBLIC_KEYS))
            except OSError as error:
                raise InvalidInput(
                    f"the policy's keyring {keyring} has no {PUBLIC_KEYS} that can be read: {error.strerror}; it is"
                    f" made by `APPTAINER_KEYSDIR={keyring} apptainer key import FILE.asc; chmod -R a+rX {keyring}`"
                ) from None
            environment["APPTAINER_KEYSDIR"] = place
        status, text = run([find_program(), "verify", "--all", "--local", "--json", str(image)], environment)
    try:
        return read_verification(text, is_good=status == 0)
    except InvalidInput as error:
        remedy = "where it is damaged, get it again from where it came, or build it anew"
        raise InvalidInput(f"image {image} cannot be verified ({error}): {remedy}") from None


def read_verification(text: str, *, is_good: bool) -> tuple[Signature, ...]:
    """What `apptainer verify --json` printed; () where there is no signature.

    Raises
    ------
    InvalidInput
        Where it could not look for one, in its own words.
    """
    try:
        said = _find_json(text)
    except ValueError:
        raise LaunchError(f"apptainer verify says what nobody understands; is it too old? {text.strip()}") from None
    if not said.get("Signatures"):
        if is_good or "signature not found" in text:
            return ()
        raise InvalidInput(text.rpartition("Failed to verify container: ")[2].strip())
    expired = "expired" in text
    # Whatever else is wrong, be it a part that was added afterwards, is no matter of keys.
    covers = is_good or expired or "unknown entity" in text
    found: dict[str, Signature] = {}
    for entry in said.get("SignerKeys") or []:
        signer = entry["Signer"]
        print_, before = signer["Fingerprint"].lower(), found.get(signer["Fingerprint"].lower())
        found[print_] = Signature(
            print_,
            signer["Name"],
            is_known=bool(signer["KeyLocal"]),
            is_good=is_good and bool(signer["KeyCheck"]),
            is_expired=expired,
            covers_data=covers and bool(signer["DataCheck"]) and (before is None or before.covers_data),
        )
    # Signed, by somebody whose key nobody has here.
    return tuple(found.values()) or (
        Signature("", is_known=False, is_good=False, is_expired=expired, covers_data=covers),
    )


def examine(image: Path, policy: Policy, use: str) -> tuple[SifFile, list[Flaw], Judgment]:
    """What an image is, what is wrong with it, and what the site's policy says to that."""
    file = read_sif(image)
    flaws = find_flaws(read_signatures(image, policy.keyring), policy.trusted, file.architecture, find_architecture())
    judgment = judge(str(image), flaws, policy, use)
    if lack := find_lack_of_keys(file, image):
        judgment = replace(judgment, warnings=(*judgment.warnings, lack))
    return file, flaws, judgment


def find_lack_of_keys(file: SifFile, image: Path) -> str:
    """Why this image cannot be run here for want of a key; "" where it can."""
    if not file.is_encrypted or find_keys(os.environ):
        return ""
    return f"image {image} is encrypted, and here is no key to run it with: say it by {' or '.join(KEYS)}"


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status, and what a command wrote; of bytes that are no text, a mark is left."""
    # Not through spython, which fails where output is not UTF-8.
    done = subprocess.run(
        command,
        env=None if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


def _find_json(text: str) -> dict[str, Any]:
    """The object within other words; `ValueError` where there is none."""
    value, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    return dict(value)
