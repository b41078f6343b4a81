"""A node that rescues, as a program: `python -m tests.cluster.rescue_node URL PREFIX OPTIONS`.

The option `lifeline` has those of its Lifeline, if it has one, `crontab` the expressions of its
Cron, and `freeze` names a file: who
removes it stops itself in the transaction that rescues. Each run of a job says when it begins and
ends, and each look of the Lifeline what came of it.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oban_actors import Job, Oban, Plugin, telemetry, worker
from oban_actors.plugins import Cron, Lifeline
from tests.cluster.node import freezing, tell
from tests.support.waiting import wait_until


@worker(name="tests.cling", queue="alpha")
def cling(job: Job) -> None:
    """Hold on while a file is there, the first time; perhaps until told to end."""
    tell(ran=job.id, attempt=job.attempt)
    if job.attempt == 1:
        file, heeds = Path(job.args["hold"]), job.args.get("heed", False)
        patience = job.args.get("patience", 200)
        wait_until(lambda: (heeds and job.cancelled) or not file.exists(), patience)
    tell(over=job.id, cancelled=job.cancelled)


@worker(name="tests.tick", queue="alpha")
def tick(job: Job) -> None:
    """Do nothing; the row says for which minute it ran."""


def on_look(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Print what a look came to."""
    if metadata.get("plugin") is not Lifeline:
        return
    if metadata.get("error") is not None:
        tell(look="failed")
    else:
        tell(look="done", rescued=[job.id for job in metadata["rescued_jobs"]])


def main() -> None:
    """Run until told to stop."""
    url, prefix, given = sys.argv[1:4]
    options = json.loads(given)
    lifeline = options.pop("lifeline", None)
    if token := options.pop("freeze", None):
        telemetry.attach("node-freeze", "oban.notifier.notify.stop", freezing(Path(token)))
    telemetry.attach("node-look", "oban.plugin.stop", on_look)
    plugins: list[Plugin] = [] if lifeline is None else [Lifeline(**lifeline)]
    if crontab := options.pop("crontab", None):
        plugins.append(Cron([(expression, tick) for expression in crontab]))
    oban = Oban(url, prefix=prefix, plugins=plugins, **options)
    # Once it listens to signals, which `run` does before it starts the tree.
    telemetry.attach("node-start", "oban.supervisor.init", lambda *_: tell(started=True))
    oban.run()


if __name__ == "__main__":
    main()
