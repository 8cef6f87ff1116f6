"""``python -m demos_hpc analysis.py ARGUMENTS``: a script as a rank of a launch; otherwise the command line."""

import sys

if len(sys.argv) > 1 and sys.argv[1].endswith(".py"):
    from .config import Config
    from .programs import run_analysis

    run_analysis(sys.argv[1], sys.argv[2:], Config.load())
else:
    from .cli import main

    main()
