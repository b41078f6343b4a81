"""How the bench's programs say what they saw."""

import json
import sys
from typing import Any


def say(**facts: Any) -> None:
    """Write a line."""
    # At once: jobs in several threads say something, and `print` writes the line's end apart.
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
