"""OTP on pykka: supervised actors with names, timers and honest ends.

The layer knows nothing of jobs or databases; see docs/architecture.md.
"""

from oban_actors.actors.clock import SYSTEM_CLOCK, Clock, SystemClock, VirtualClock
from oban_actors.actors.errors import (
    ActorError,
    AlreadyRegistered,
    CallTimeout,
    Deadlock,
    NoProcess,
    ServerCrashed,
    StartFailed,
    UnexpectedMessage,
)
from oban_actors.actors.gen_server import GenServer, Sender
from oban_actors.actors.lifecycle import Parent, send
from oban_actors.actors.mailbox import Mailbox
from oban_actors.actors.messages import (
    IGNORE,
    NOREPLY,
    ChildExit,
    Continue,
    Down,
    Exit,
    Failure,
    Monitor,
    Name,
    Ref,
    Stop,
)
from oban_actors.actors.reasons import KILLED, NOPROC, NORMAL, SHUTDOWN, Reason
from oban_actors.actors.registry import Registry
from oban_actors.actors.requests import (
    DeleteChild,
    RestartChild,
    StartChild,
    TerminateChild,
    UnknownChild,
    WhichChildren,
)
from oban_actors.actors.root import Root
from oban_actors.actors.runtime import Runtime
from oban_actors.actors.spec import ChildSpec
from oban_actors.actors.supervisor import Supervisor
from oban_actors.actors.timers import Timer, Timers
from oban_actors.actors.tree import Node

__all__ = [
    "IGNORE",
    "KILLED",
    "NOPROC",
    "NOREPLY",
    "NORMAL",
    "SHUTDOWN",
    "SYSTEM_CLOCK",
    "ActorError",
    "AlreadyRegistered",
    "CallTimeout",
    "ChildExit",
    "ChildSpec",
    "Clock",
    "Continue",
    "Deadlock",
    "DeleteChild",
    "Down",
    "Exit",
    "Failure",
    "GenServer",
    "Mailbox",
    "Monitor",
    "Name",
    "NoProcess",
    "Node",
    "Parent",
    "Reason",
    "Ref",
    "Registry",
    "RestartChild",
    "Root",
    "Runtime",
    "Sender",
    "ServerCrashed",
    "StartChild",
    "StartFailed",
    "Stop",
    "Supervisor",
    "SystemClock",
    "TerminateChild",
    "Timer",
    "Timers",
    "UnexpectedMessage",
    "UnknownChild",
    "VirtualClock",
    "WhichChildren",
    "send",
]
