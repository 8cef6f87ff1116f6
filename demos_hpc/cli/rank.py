"""``python -m demos_hpc -m demos_hpc.cli.rank FILE COMMAND …``: a command as the analysis of a launch that it started.

Its exit status goes to a file, so that a launch ends in peace, without a word from MPI, where the command has failed
and has said why.
"""

import sys
from pathlib import Path

from . import main

if __name__ == "__main__":
    status_file = Path(sys.argv.pop(1))
    try:
        main()
    except SystemExit as end:
        status_file.write_text(str(end.code or 0), encoding="ascii")
