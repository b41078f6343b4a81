"""`python -m oban_actors` is the command line."""

import sys

from oban_actors.cli import main

sys.exit(main())
