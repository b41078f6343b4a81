"""Doctor: compares a live database with what should be there, and says what mends each fault."""

from oban_actors.doctor.examination import examine
from oban_actors.doctor.finding import Finding, Limits, Severity, render

__all__ = ["Finding", "Limits", "Severity", "examine", "render"]
