"""A process that migrates once it is told to: `python -m tests.cluster.migrating URL PREFIX`."""

import sys

from oban_actors import Oban


def main() -> None:
    """Say that it is ready, wait for a line, migrate, and print the version."""
    url, prefix = sys.argv[1:3]
    oban = Oban(url, prefix=prefix)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{oban.migrate()}\n")
    oban.repo.close()


if __name__ == "__main__":
    main()
