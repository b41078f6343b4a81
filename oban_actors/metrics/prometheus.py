"""Metrics for Prometheus; needs `pip install 'oban_actors[prometheus]'`."""

from collections.abc import Iterator
from typing import Any, cast

from oban_actors.metrics.catalogue import READ, SECONDS, TOLD, Metric
from oban_actors.metrics.reader import Reader
from oban_actors.metrics.recorder import Recorder

try:
    import prometheus_client as client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector, CollectorRegistry
except ImportError as error:
    raise ImportError(
        "oban_actors.metrics.prometheus needs prometheus-client: "
        "pip install 'oban_actors[prometheus]'"
    ) from error

__all__ = ["PrometheusMetrics", "attach"]


def attach(
    registry: CollectorRegistry | None = None, name: str | None = None
) -> "PrometheusMetrics":
    """Keep metrics of the instances of this program from now on.

    What happens is counted as it happens. Trees, leadership and the ages of queues are read when
    the registry is asked, the latter from the database, at most every ten seconds.

    Args:
        registry: where they are kept, the client's own by default.
        name: of the only instance to be counted; None (default): all.

    Returns:
        what detaches them again.

    Raises:
        ValueError: the registry has metrics of these names already.

    """
    metrics = PrometheusMetrics(registry or client.REGISTRY, name)
    metrics.attach()
    return metrics


class PrometheusMetrics(Collector):
    """Metrics in a registry.

    Args:
        registry: where.
        name: see `attach`.

    """

    def __init__(self, registry: CollectorRegistry, name: str | None = None) -> None:
        self.registry = registry
        self._told: dict[str, Any] = {}
        self._recorder = Recorder(self._tell, name)
        self._reader = Reader(self._recorder, name)

    def attach(self) -> None:
        """Register and begin to count; see `attach`."""
        try:
            for metric in TOLD:
                self._told[metric.name] = self._made(metric)
            self.registry.register(self)
        except ValueError:
            self._unregister()
            raise
        self._recorder.attach()

    def detach(self) -> None:
        """Count no more, and take the metrics out of the registry."""
        self._recorder.detach()
        if self._told:
            self.registry.unregister(self)
            self._unregister()

    def describe(self) -> Iterator[Any]:
        """Name what is collected, so that nothing is read for it."""
        return iter([_family(metric) for metric in READ])

    def collect(self) -> Iterator[Any]:
        """Read what is read when asked; the registry calls it."""
        families = {metric.name: _family(metric) for metric in READ}
        for sample in self._reader.read():
            families[sample.metric.name].add_metric(list(sample.labels), sample.value)
        yield from families.values()

    def _unregister(self) -> None:
        for one in self._told.values():
            self.registry.unregister(one)
        self._told.clear()

    def _made(self, metric: Metric) -> Any:
        kind = client.Histogram if metric.kind == "histogram" else client.Counter
        options: Any = {"buckets": SECONDS} if metric.kind == "histogram" else {}
        return kind(
            _name(metric), metric.about, metric.all_labels, registry=self.registry, **options
        )

    def _tell(self, metric: Metric, amount: float, labels: tuple[str, ...]) -> None:
        found = self._told.get(metric.name)
        if found is None:
            return
        one = found.labels(*labels)
        if metric.kind == "histogram":
            one.observe(amount)
        else:
            one.inc(amount)


def _family(metric: Metric) -> Any:
    kind = CounterMetricFamily if metric.kind == "total" else GaugeMetricFamily
    return cast("Any", kind)(_name(metric), metric.about, labels=list(metric.all_labels))


def _name(metric: Metric) -> str:
    unit = "_seconds" if metric.unit == "s" else ""
    return metric.name.replace(".", "_") + unit
