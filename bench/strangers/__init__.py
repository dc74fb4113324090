"""strangers: networks that nobody here made, each a file of loader, data and metric, compressed by the same command.

    cortado compress bench/strangers/NAME.py --limit "score >= -1 %" --time-limit "10 min"

Where that is not enough, the time limit is 30 minutes. The table says how much smaller and faster each came back, what it lost
on test data, and whether a fresh process confirmed its report. Packages are listed in requirements.txt. Pieces are kept:
`python -m bench.strangers.table rnet` runs one network.
"""

from bench.strangers.table import run

__all__ = ["run"]
