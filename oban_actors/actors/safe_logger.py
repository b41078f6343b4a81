"""A logger that raises nothing: actors have to end in order also where a host's filter fails."""

import logging
import sys
import traceback
from typing import Any


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Passes everything on to a logger, and prints what that raises.

    Python guards a handler's `emit`, but neither filters nor what a host puts in their place.

    Args:
        name: of the logger.

    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Leave it as it is: what a call says besides is not replaced."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log it, as far as that works."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:  # noqa: BLE001 (a host's filter may raise anything)
            if sys.stderr is not None:
                traceback.print_exc()
