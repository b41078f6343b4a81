"""Signals that stop a node, and which of them hurry one that stops already."""

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """Name the signals that stop a node: SIGTERM, SIGINT and, unless it is ignored, SIGHUP.

    Under `nohup` SIGHUP is ignored, and stays so.
    """
    always = (signal.SIGTERM, signal.SIGINT)
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return always
    return (*always, signal.SIGHUP)


def hurries(number: int) -> bool:
    """Whether it hurries a node that stops already.

    SIGHUP does not: a terminal that closes may send several, a service manager one with SIGTERM,
    and none of them means impatience.
    """
    return number in (signal.SIGTERM, signal.SIGINT)
