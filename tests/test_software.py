"""Lists of software: what dpkg and pip say, in CycloneDX."""

from __future__ import annotations

import json

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.software import make_bill, read_packages

DPKG = (
    "libc6\t2.36-9+deb12u10\tamd64\tglibc\t2.36-9+deb12u10\nadduser\t3.134\tall\tadduser\t3.134\n"
    "bsdutils\t1:2.38.1-5+deb12u3\tamd64\tutil-linux\t2.38.1-5+deb12u3\nbash\t5.2.15-2+b13\tamd64\tbash\t5.2.15-2\n"
    "login\t1:4.13-1\tamd64\tshadow\t1:4.13-1\n"
)
PIP = json.dumps([["numpy", "2.4.6", "BSD-3-Clause"], ["typing_extensions", "4.16.0", ""]])


def test_a_bill_of_materials() -> None:
    bill = make_bill("peak", "debian 12\n", read_packages(DPKG, PIP))
    assert [c["purl"].partition(":")[2] for c in bill["components"][1:]] == [
        "deb/debian/adduser@3.134?arch=all&distro=debian-12",
        "deb/debian/bash@5.2.15-2%2Bb13?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
        "deb/debian/bsdutils@1:2.38.1-5%2Bdeb12u3?arch=amd64&distro=debian-12&upstream=util-linux%402.38.1-5%2Bdeb12u3",
        "deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc%402.36-9%2Bdeb12u10",
        "deb/debian/login@1:4.13-1?arch=amd64&distro=debian-12&upstream=shadow%401:4.13-1",
        "pypi/numpy@2.4.6",
        "pypi/typing-extensions@4.16.0",
    ]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["components"][0]["version"] == "12"
    assert bill["components"][6]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert bill == make_bill("peak", "debian 12\n", read_packages("\n".join(reversed(DPKG.splitlines())), PIP))


def test_scanners_are_told_of_which_source_a_package_is() -> None:
    """Advisories are about sources; what is not told, trivy does not look for."""
    bill = make_bill("peak", "debian 12\n", read_packages(DPKG, PIP))
    told = {
        c["name"]: {p["name"].rpartition(":")[2]: p["value"] for p in c.get("properties", [])}
        for c in bill["components"]
    }
    source = {"PkgType": "debian", "SrcName": "glibc", "SrcVersion": "2.36", "SrcRelease": "9+deb12u10"}
    assert told["libc6"] == source
    assert told["adduser"] == {"PkgType": "debian", "SrcName": "adduser", "SrcVersion": "3.134"}
    assert told["login"] == {**source, "SrcName": "shadow", "SrcVersion": "4.13", "SrcRelease": "1", "SrcEpoch": "1"}
    assert told["numpy"] == {}


def test_what_is_no_debian() -> None:
    with pytest.raises(InvalidInput, match="Debian"):
        read_packages("sh: dpkg-query: not found\n", PIP)
