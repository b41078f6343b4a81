"""Proof that the notifier hears, and of a cluster: what pings that come back say."""

from dataclasses import dataclass, field

from oban_actors.messages import Status

STALE_AFTER = 120.0
"""Seconds after which a node that was not heard is no longer counted, as in Oban."""

PATIENCE = 6
"""Unproven beats between two requests to reconnect, once one did not help."""


@dataclass(slots=True)
class Proof:
    """What the pings that come back say: the Pulse's decisions, apart from its effects.

    Args:
        token: this process's own mark.
        proven: whether the last ping came back; None before the first had its time.

    """

    token: str
    proven: bool | None = None
    pending: bool = False
    unproven: int = 0
    others: dict[str, float] = field(default_factory=dict)

    def sent(self) -> None:
        """Record that a ping is on its way."""
        self.pending = True

    def heard(self, token: str, now: float) -> None:
        """Record a ping: our own proves the notifier, others' make a cluster."""
        if token == self.token:
            self.proven, self.pending, self.unproven = True, False, 0
        else:
            self.others[token] = now

    def judge(self) -> bool:
        """Judge the last ping, its time over.

        Returns:
            whether the notifier's connection should be made anew.

        """
        if not self.pending:
            return False
        self.pending = False
        self.proven = False
        self.unproven += 1
        return self.unproven == 1 or self.unproven % PATIENCE == 0

    def status(self, now: float) -> Status:
        """Say what the cluster looks like from here."""
        self.others = {k: at for k, at in self.others.items() if now - at <= STALE_AFTER}
        if self.proven is None:
            return "unknown"
        if not self.proven:
            return "isolated"
        return "clustered" if self.others else "solitary"
