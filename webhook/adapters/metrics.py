"""``/metrics`` for Prometheus, on a plain port of its own.

Nothing is counted by the library: servers keep plain integers, and a page is made of them when somebody asks, so that
the hot path pays an addition at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from webhook.adapters.health import Health

PATH: Final = "/metrics"
Source = Callable[[], Iterable[Metric]]


class Metrics(Collector):
    """The page of one server; sources are asked anew for each page."""

    def __init__(self, *sources: Source) -> None:
        self._sources = list(sources)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def add(self, source: Source) -> None:
        """Show what another part of the server has counted."""
        self._sources.append(source)

    def collect(self) -> Iterable[Metric]:
        """Called by the library for each page."""
        for source in self._sources:
            yield from source()

    def page(self) -> str:
        """The page in the text format of Prometheus."""
        return generate_latest(self._registry).decode()

    async def serve(self, address: str, port: int) -> None:
        """Serve the page until cancelled.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        await Health({}, {PATH: self.page}, field="metricsPort").serve(address, port)


def gauge(name: str, text: str, value: float) -> Metric:
    """One number that goes up and down."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """One number for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """One number that only grows; ``_total`` is added to the name."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """The same for each value of a label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
