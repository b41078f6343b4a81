"""Traces and metrics for OpenTelemetry; needs `pip install 'oban_actors[otel]'`."""

from oban_actors import tracing
from oban_actors.metrics.reader import Reader
from oban_actors.metrics.recorder import Recorder

try:
    from opentelemetry import metrics as otel_metrics
    from opentelemetry import trace as otel_trace

    from oban_actors.metrics.otel_instruments import Instruments
    from oban_actors.metrics.otel_spans import Spans
except ImportError as error:
    raise ImportError(
        "oban_actors.metrics.otel needs opentelemetry-api: pip install 'oban_actors[otel]'"
    ) from error

__all__ = ["OtelTelemetry", "attach"]

SCOPE = "oban_actors"
"""The name of our instrumentation scope."""


def attach(
    tracer_provider: otel_trace.TracerProvider | None = None,
    meter_provider: otel_metrics.MeterProvider | None = None,
) -> "OtelTelemetry":
    """Trace and measure the instances of this program from now on.

    Each insert is a span, and each run another one that continues it, whichever process runs the
    job: the context travels in the job's meta (`traceparent`, W3C).

    Args:
        tracer_provider: default the global one.
        meter_provider: default the global one.

    Returns:
        what detaches it again.

    Raises:
        ValueError: it is attached already.

    """
    found = OtelTelemetry(
        tracer_provider or otel_trace.get_tracer_provider(),
        meter_provider or otel_metrics.get_meter_provider(),
    )
    found.attach()
    return found


class OtelTelemetry:
    """Spans and instruments of OpenTelemetry.

    Args:
        tracer_provider: gives the tracer.
        meter_provider: gives the meter.

    """

    def __init__(
        self,
        tracer_provider: otel_trace.TracerProvider,
        meter_provider: otel_metrics.MeterProvider,
    ) -> None:
        self._spans = Spans(tracer_provider.get_tracer(SCOPE))
        self._instruments = Instruments(meter_provider.get_meter(SCOPE))
        self._recorder = Recorder(self._instruments.tell)
        self._reader = Reader(self._recorder)

    def attach(self) -> None:
        """Begin; see `attach`."""
        tracing.attach(self._spans)
        self._spans.attach()
        self._instruments.read_from(self._reader)
        self._recorder.attach()

    def detach(self) -> None:
        """Trace and measure no more; what OpenTelemetry has of it stays with it."""
        self._recorder.detach()
        self._instruments.read_from(None)
        self._spans.detach()
        tracing.detach(self._spans)
