"""The command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    from .config import Config
    from .programs import serve

    assert sys.argv[1] == "serve"
    serve(sys.argv[2], Config.load())
