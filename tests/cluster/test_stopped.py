"""A process that was stopped and is to end as soon as it goes on, as a service manager has it."""

import signal

import pytest

from tests.support.instances import Starter
from tests.support.nodes import cluster
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_signal_right_after_a_stop_is_heard(start_oban: Starter) -> None:
    """The kernel may give it to any thread then, and the tree ends all the same."""
    start_oban.make()
    for _ in range(5):
        with cluster(start_oban.database, 1, stager={"interval": 60.0}) as (node,):
            node.signal(signal.SIGSTOP)
            wait_until(lambda node=node: node.stopped)  # type: ignore[misc]  # bound now
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)

            assert node.process.wait(20) == 0
            wait_until(lambda node=node: any("ended" in line for line in node.said))  # type: ignore[misc]  # bound now
