"""Our metrics as OpenTelemetry's instruments."""

from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from oban_actors.actors.clock import real_monotonic
from oban_actors.metrics.catalogue import READ, SECONDS, TOLD, Metric
from oban_actors.metrics.reader import Reader, Sample

FRESH = 1.0
"""Seconds for which one reading does for all instruments of a collection."""


class Instruments:
    """Counters and histograms that are told, and observables that are read.

    Args:
        meter: makes them.

    """

    def __init__(self, meter: Meter) -> None:
        self._reader: Reader | None = None
        self._samples: list[Sample] = []
        self._read_at = -FRESH
        self._told: dict[str, Any] = {metric.name: _made(meter, metric) for metric in TOLD}
        for metric in READ:
            kind = (
                meter.create_observable_counter
                if metric.kind == "total"
                else meter.create_observable_gauge
            )
            kind(metric.name, [self._observer(metric)], metric.unit, metric.about)

    def read_from(self, reader: Reader | None) -> None:
        """Read from here from now on; None: nothing."""
        self._reader = reader
        self._samples, self._read_at = [], -FRESH

    def tell(self, metric: Metric, amount: float, labels: tuple[str, ...]) -> None:
        """Count or observe."""
        attributes = _attributes(metric, labels)
        if metric.kind == "histogram":
            self._told[metric.name].record(amount, attributes)
        else:
            self._told[metric.name].add(amount, attributes)

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for sample in self._read():
                if sample.metric is metric:
                    yield Observation(sample.value, _attributes(metric, sample.labels))

        return observe

    def _read(self) -> list[Sample]:
        now, reader = real_monotonic(), self._reader
        if reader is None:
            return []
        if now - self._read_at >= FRESH:
            self._samples, self._read_at = list(reader.read()), now
        return self._samples


def _made(meter: Meter, metric: Metric) -> Any:
    if metric.kind == "counter":
        return meter.create_counter(metric.name, metric.unit, metric.about)
    return meter.create_histogram(
        metric.name,
        metric.unit,
        metric.about,
        explicit_bucket_boundaries_advisory=list(SECONDS),
    )


def _attributes(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    named = dict(zip(metric.all_labels, labels, strict=True))
    return {f"oban.{name}" if name != "oban" else "oban.name": each for name, each in named.items()}
