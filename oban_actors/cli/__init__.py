"""The command line, `oban-actors`: what is done to an instance from a shell."""

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: words of the command, this process's by default.

    Returns:
        the exit code, see `oban_actors.cli.exits`.

    """
    try:
        import click  # noqa: F401, PLC0415 (is it there?)
        import rich  # noqa: F401, PLC0415 (likewise)
    except ImportError:
        # Nothing of this needs them but the command line itself.
        sys.stderr.write(
            "error: the command line needs click and rich: pip install 'oban_actors[cli]'\n"
        )
        return 2
    from oban_actors.cli.app import run  # noqa: PLC0415 (it needs them)

    return run(sys.argv[1:] if args is None else list(args))
