"""Programs over the core: `python -m tools.report`, `python -m tools.benchmark`, the exercises' checks."""

import sys

from support.errors import end_quietly

if sys.argv[0] == "-m":  # Python imports this before the program
    end_quietly()
