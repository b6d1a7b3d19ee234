"""The lowest and the highest sample of a window are shown, however few points: a gauge of Prometheus, through the bridge.

Prometheus is asked for every sample, and the bridge thins. Prometheus' own `min_over_time` and `max_over_time` do not say when
the extreme was, so what they give could not be the same points.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import pytest_asyncio

from app.catalog import load
from app.model import Query, Result
from app.query.bridge import Bridge
from app.sources.prometheus.source import PrometheusConfig
from app.telemetry import Telemetry
from tests.servers.prometheus import prometheus_with

_DAY_S, _EVERY_S = 86_400, 10
#: An hour ago, on a minute.
_END = int(time.time()) // 60 * 60 - 3600
_BEGIN = _END - _DAY_S
_HOSTS = ("a", "b", "c")

_CATALOGUE = """
group: g
title: G
labels: {host: {title: Host, metric: load}}
metrics:
  load:
    title: t
    description: d
    unit: percent
    aggregate: avg
    over_time: last
    resolution_s: 10
    labels: [host]
    history: {source: prom, query: "avg by ({by}) (load{where})"}
"""


def course(host: str) -> list[float]:
    """A day of samples; the lowest and the highest one stand alone, each host's elsewhere."""
    random = np.random.default_rng(ord(host))
    values = np.round(50 + 10 * random.standard_normal(_DAY_S // _EVERY_S).clip(-3, 3), 3)
    lowest, highest = random.choice(len(values), 2, replace=False)
    values[lowest], values[highest] = 1.5, 99.5
    return [float(value) for value in values]


COURSES = {host: course(host) for host in _HOSTS}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    lines = ["# TYPE load gauge"]
    for host, values in COURSES.items():
        lines += [f'load{{host="{host}"}} {value} {_BEGIN + _EVERY_S * place}' for place, value in enumerate(values)]
    with prometheus_with(tmp_path_factory.mktemp("prometheus"), "\n".join([*lines, "# EOF", ""])) as running:
        yield running


@pytest_asyncio.fixture
async def bridge(port: int) -> AsyncIterator[Bridge]:
    source = PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}"}).build("prom")
    catalogue = load({"g.yaml": _CATALOGUE}, {"prom": "prometheus"})
    yield Bridge(catalogue, {"prom": source.fetch}, Telemetry(), lambda: (_END + 3600) * 1000)
    await source.close()


async def ask(bridge: Bridge, from_s: int, to_s: int, most: int) -> Result:
    [result] = await bridge.run([Query("load", from_s * 1000, to_s * 1000, max_points=most, by=("host",))], budget_s=20)
    assert result.status == "fresh", result
    return result


@pytest.mark.parametrize("most", [40, 200, 1000])
async def test_the_lowest_and_the_highest_sample_of_a_day_are_shown_at_their_times(bridge: Bridge, most: int) -> None:
    result = await ask(bridge, _BEGIN, _END, most)
    for labels, times, values in result.frame.runs():
        samples = COURSES[dict(labels)["host"]]
        for value, place in ((1.5, samples.index(1.5)), (99.5, samples.index(99.5))):
            # A bucket is named by its start and has the sample at its end.
            assert times[values == value].tolist() == [(_BEGIN + _EVERY_S * (place - 1)) * 1000]
        assert len(times) <= most
    assert len(result.frame.series) == len(_HOSTS)
    remark = f"thinned to {most} points a series: the lowest and highest {_EVERY_S}s value of each stretch are kept"
    assert [notice.text for notice in result.frame.notices] == [remark]


async def test_an_extreme_stays_where_it_is_while_the_window_moves(bridge: Bridge) -> None:
    seen = set[tuple[float, int]]()
    for moved_s in range(0, 3600, 430):
        result = await ask(bridge, _BEGIN + moved_s - 3600, _END + moved_s, 40)
        found = dict(zip(result.frame.value.tolist(), result.frame.time.tolist(), strict=True))
        [(_, times, values)] = [run for run in result.frame.runs() if dict(run[0])["host"] == "a"]
        assert found.keys() >= {1.5, 99.5}
        seen |= {(value, int(at)) for value, at in zip(values.tolist(), times.tolist(), strict=True) if value in (1.5, 99.5)}
    assert len(seen) == 2
