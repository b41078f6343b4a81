"""`python -m oban_actors` is the command line."""

import sys

from oban_actors.cli import main

if __name__ == "__main__":
    sys.exit(main())
