"""Two processes, one of which has not the right to stage: whoever has it leads in the end."""

import pytest
import sqlalchemy as sa

from tests.support.databases import Database
from tests.support.instances import starter
from tests.support.nodes import Node
from tests.support.waiting import wait_until


@pytest.mark.slow
@pytest.mark.db
def test_the_process_that_may_stage_leads(pg: Database) -> None:
    """The other one leads first, resigns unasked, and due jobs are staged."""
    role = f"{pg.prefix}_lesser"
    with starter(pg) as one:
        one.make()
        for statement in (
            f"CREATE ROLE {role}",
            f'GRANT USAGE ON SCHEMA "{pg.prefix}" TO {role}',
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{pg.prefix}" TO {role}',
            f"REVOKE UPDATE, DELETE ON {one.tables.jobs} FROM {role}",
        ):
            one.tables.execute(statement)
        acting = sa.make_url(pg.url).update_query_dict({"options": f"-c role={role}"})
        url = acting.render_as_string(hide_password=False)
        nodes: list[Node] = []
        try:
            nodes.append(Node(Database("postgresql", url, pg.prefix), {}))
            wait_until(lambda: nodes[0].leads, 60, "the lesser one leads")
            nodes.append(Node(pg, {}))
            one.tables.execute(
                "INSERT INTO {jobs} (state, queue, worker, args, scheduled_at) "
                "VALUES ('scheduled', 'q', 'w', '{}', timezone('UTC', now()))"
            )

            # The lesser one may have resigned before this one was up, and now waits to do it again.
            wait_until(lambda: nodes[1].leads and not nodes[0].leads, 120, "the other one leads")
            wait_until(lambda: one.tables.count("available") == 1, 60, "the job is staged")
            assert nodes[0].process.poll() is None
        finally:
            for node in nodes:
                node.end()
            one.tables.execute(f"DROP OWNED BY {role}")
            one.tables.execute(f"DROP ROLE {role}")
