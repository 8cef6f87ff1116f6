"""Writes hot modules of the Python package as C, by mypyc, and says what is to be compiled.

    python generate.py TARGET SOURCE MODULE...

TARGET is the directory for what is written, SOURCE that of ``demos_hpc``, a MODULE is ``wire`` or ``transport/pair``.
The first line of the output has the directories of headers, each other one the name of an extension and its source.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import setuptools  # noqa: F401  (mypyc makes its extensions of it, where it is loaded)
from mypyc.build import mypycify


def main(target: str, source: str, *modules: str) -> None:
    out = Path(target).resolve()
    os.chdir(source)  # tracebacks name files from here
    # None of the settings of pyproject.toml: what an environment lacks the types of is taken as it comes.
    options = ["--config-file=", "--ignore-missing-imports", f"--cache-dir={out / 'cache'}"]
    with redirect_stdout(sys.stderr):
        paths = [f"demos_hpc/{module}.py" for module in modules]
        extensions = mypycify([*options, *paths], target_dir=str(out), group_name="demos_hpc")
    print(*dict.fromkeys(place for extension in extensions for place in extension.include_dirs), sep="|")
    for extension in extensions:
        print(extension.name, *extension.sources, sep="|")


if __name__ == "__main__":
    main(*sys.argv[1:])
