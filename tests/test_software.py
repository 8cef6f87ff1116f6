"""Lists of software: what dpkg and pip say, in CycloneDX."""

from __future__ import annotations

import json

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.software import make_bill, read_packages

DPKG = "libc6\t2.36-9+deb12u10\tamd64\nadduser\t3.134\tall\n"
PIP = json.dumps([["numpy", "2.4.6", "BSD-3-Clause"], ["typing_extensions", "4.16.0", ""]])


def test_a_bill_of_materials() -> None:
    packages = read_packages(DPKG, PIP)
    assert [p.purl for p in packages] == [
        "pkg:deb/debian/adduser@3.134?arch=all",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
        "pkg:pypi/numpy@2.4.6",
        "pkg:pypi/typing-extensions@4.16.0",
    ]
    bill = make_bill("peak", "debian 12\n", packages)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["components"][0]["version"] == "12"
    assert bill["components"][3]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert bill == make_bill("peak", "debian 12\n", read_packages("\n".join(reversed(DPKG.splitlines())), PIP))


def test_what_is_no_debian() -> None:
    with pytest.raises(InvalidInput, match="Debian"):
        read_packages("sh: dpkg-query: not found\n", PIP)
