"""A tree in which everything that has a name has a hostile one."""

from oban_actors import Evaluate, Notify, worker
from oban_actors.cli.queue_report import look
from oban_actors.doctor import examine
from oban_actors.metrics.ages import Ages
from oban_actors.plugins import Cron, Lifeline, Pruner
from oban_actors.worker_registry import forget
from tests.queues.work import wait_state
from tests.security.statements import HOSTILE
from tests.support.instances import Starter
from tests.support.waiting import wait_until

NAMES = (HOSTILE[0], HOSTILE[1], HOSTILE[5], HOSTILE[6])
"""Those that may be names of all of it."""


def use_a_tree(start: Starter, text: str) -> None:
    """Give instance, node, queue, worker, cron entry and channel such a name; all must work."""
    w = worker(name=text)(lambda _job: None)
    node = text.replace(" ", "")
    cron = Cron([("@reboot", text, {"name": text, "queue": text})])
    try:
        oban = start.leading(
            name=text,
            node=node,
            queues={text: {"limit": 2}},
            plugins=[cron, Pruner(), Lifeline()],
        )
        heard = start.hear(oban, "insert", text)
        job = oban.insert(w.new({"a": 1}, queue=text))
        wait_state(oban, job, "completed")
        oban.ask(("plugin", cron.id), Evaluate(), timeout=30)
        oban.ask("notifier", Notify(text, [{text: text}]), timeout=30)
        assert heard.wait_for(text) == [{text: text}]
        oban.scale_queue(text, 5, node=node)
        wait_until(lambda: oban.check_queue(text).limit == 5)
        oban.pause_queue(text)
        wait_until(lambda: oban.check_queue(text).paused)
        found = examine(oban.repo)
        assert text in look(oban)
        assert Ages().read(oban) != {}
        rows = start.tables.execute("SELECT name, node FROM {peers}")
        oban.stop()
    finally:
        forget(text)

    assert rows[0].name == text
    assert rows[0].node.startswith(node)
    assert found is not None
    assert start.tables.count("completed") >= 1
