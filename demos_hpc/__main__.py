"""``python -m demos_hpc analysis.py ARGUMENTS``: a script as a rank of a launch; otherwise the command line.

``python -m demos_hpc -m module ARGUMENTS`` does the same with a module.
"""

import sys

if len(sys.argv) > 1 and (sys.argv[1].endswith(".py") or (sys.argv[1] == "-m" and len(sys.argv) > 2)):
    from .config import Config
    from .programs import run_analysis

    run_analysis(sys.argv[1:], Config.load())
else:
    from .cli import main

    main()
