"""What a program's own tests need: are jobs enqueued, and do their workers do what they should.

Mirrors `Oban.Testing`.
"""

from oban_actors.options import TestingMode
from oban_actors.queues.drainer import DrainCounts
from oban_actors.testing.enqueued import all_enqueued, assert_enqueued, refute_enqueued
from oban_actors.testing.modes import with_testing_mode
from oban_actors.testing.performing import aperform_job, build_job, perform_job

__all__ = [
    "DrainCounts",
    "TestingMode",
    "all_enqueued",
    "aperform_job",
    "assert_enqueued",
    "build_job",
    "perform_job",
    "refute_enqueued",
    "with_testing_mode",
]
