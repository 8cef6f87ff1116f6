"""What is installed in an image, as a bill of materials in CycloneDX's JSON, from what dpkg and pip say inside.

The same software gives the same text: neither time nor serial number is in it. CycloneDX 1.5,
https://cyclonedx.org/docs/1.5/json/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from .errors import InvalidInput

#: Printed inside by `DPKG`; tabs between name, version and architecture, and the source package with its version.
DPKG = (
    "dpkg-query", "--show", "--showformat",
    "${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\t${source:Version}\\n",
)  # fmt: skip
#: By which trivy knows of which source a package is; without, it finds nothing wrong with it, and does not say so.
TRIVY = "aquasecurity:trivy:"
#: Which Debian it is.
SYSTEM = ("sh", "-c", '. /etc/os-release; echo "$ID $VERSION_ID"')
#: Printed inside by Python: every distribution that it can import, a JSON list.
PIP = (
    "/opt/demos/bin/python", "-I", "-c",
    "import importlib.metadata as m, json; print(json.dumps(sorted([d.metadata['Name'], d.version,"
    " d.metadata.get('License-Expression') or ''] for d in m.distributions())))",
)  # fmt: skip


class Package(NamedTuple):
    """One thing that is installed; ``kind`` is "deb" or "pypi", and then ``detail`` its architecture or its license.

    Debian's advisories are about source packages: that of libc6 is glibc.
    """

    kind: str
    name: str
    version: str
    detail: str = ""
    source: str = ""
    source_version: str = ""

    def make_purl(self, distribution: str) -> str:
        """Its package URL, as syft writes it and grype reads it; ``distribution`` is as "debian-12"."""
        if self.kind == "pypi":
            return f"pkg:pypi/{quote(self.name.lower().replace('_', '-'))}@{quote(self.version, safe=':')}"
        purl = f"pkg:deb/debian/{quote(self.name)}@{quote(self.version, safe=':')}"
        purl += f"?arch={self.detail}&distro={distribution}"
        if (self.source, self.source_version) == (self.name, self.version):
            return purl
        return f"{purl}&upstream={quote(f'{self.source}@{self.source_version}', safe=':')}"


def read_packages(dpkg: str, pip: str) -> list[Package]:
    """What `DPKG` and `PIP` printed."""
    lines = [line.split("\t") for line in dpkg.splitlines() if line.strip()]
    if any(len(line) != 5 for line in lines):
        raise InvalidInput("dpkg-query inside the image does not answer as it does on Debian")
    packages = [Package("deb", *line) for line in lines]
    packages += [Package("pypi", name, version, license_) for name, version, license_ in json.loads(pip)]
    return sorted(packages)


def make_bill(title: str, system: str, packages: Sequence[Package]) -> dict[str, Any]:
    """The bill of materials as plain values; whose it is, by its title, and of which system, as "debian 12"."""
    name, _, version = system.strip().partition(" ")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": title}},
        "components": [
            {"type": "operating-system", "bom-ref": "system", "name": name, "version": version},
            *(_describe(package, f"{name}-{version}") for package in packages),
        ],
    }


def _describe(package: Package, distribution: str) -> dict[str, Any]:
    purl = package.make_purl(distribution)
    said: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if package.kind == "deb":
        epoch, _, rest = package.source_version.rpartition(":")
        version, dash, release = rest.rpartition("-")
        told = {"PkgType": "debian", "SrcName": package.source, "SrcVersion": version if dash else rest}
        told |= {"SrcRelease": release} if dash else {}
        told |= {"SrcEpoch": epoch} if epoch else {}
        said["properties"] = [{"name": TRIVY + name, "value": value} for name, value in told.items()]
    elif package.detail:
        said["licenses"] = [{"expression": package.detail}]
    return said
