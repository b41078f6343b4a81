"""Metrics and traces for Prometheus and OpenTelemetry: `metrics.prometheus` and `metrics.otel`.

Each needs its extra: `pip install 'oban_actors[prometheus]'`, `pip install 'oban_actors[otel]'`.
"""
