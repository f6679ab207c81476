# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The comparison of hosts: which one delays the others, and how often it is named."""

import json

import pytest

from xlkd.runtime import distributed, hosts
from xlkd.runtime.hosts import HostComparison, HostTimes, find_slow_host


def make_hosts(**changes) -> dict[int, HostTimes]:
    """Returns the times of four hosts, with those of host 2 changed."""
    times = {number: HostTimes(f"tpu-{number}", 0.4, 0.001 * number, 0.005) for number in range(4)}
    return times | {2: times[2]._replace(**changes)}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, ""),
        ({"product": 0.009}, ""),
        ({"product": 0.015}, "process 2 (tpu-2) needs 15.0 ms for a product that the others compute in 5.0 ms"),
        ({"waited": 0.039}, ""),
        ({"waited": 0.1}, "process 2 (tpu-2) waits 100.0 ms of a step of 400.0 ms for its data, the others 1.0 ms"),
    ],
)
def test_the_host_that_delays_the_others_is_named(changes, line):
    host, says = find_slow_host(make_hosts(**changes))
    assert says == (f"slow host: {line}" if line else "")
    assert host == ("process 2 (tpu-2)" if line else "")


def test_no_host_is_named_where_all_wait_or_none_is_known():
    assert find_slow_host({number: HostTimes("tpu", 0.4, 0.2, 0.005) for number in range(4)}) == ("", "")
    assert find_slow_host({0: HostTimes("tpu", 0.4, 0.2, 0.005)}) == find_slow_host({}) == ("", "")


def test_times_are_published_and_a_slow_host_is_named_once(monkeypatch):
    """Products are really computed; the other hosts are faster than any machine."""
    published = {str(number): json.dumps(HostTimes(f"tpu-{number}", 0.1, 0.0, 1e-9)) for number in (1, 2)}
    monkeypatch.setattr(hosts, "PAUSE", 0)
    monkeypatch.setattr(distributed, "has_several_processes", lambda: True)
    monkeypatch.setattr(distributed, "get_process", lambda: 0)
    monkeypatch.setattr(
        distributed, "publish_value", lambda name, text: published.__setitem__(name.rpartition("/")[2], text)
    )
    monkeypatch.setattr(distributed, "read_published", lambda folder: published)
    comparison, lines = HostComparison(10), []
    for step in range(20, 60, 10):
        lines += [comparison.compare(step, 0.2 * (step - 10), [0.05, 0.05])]
    (line,) = filter(None, lines)
    assert lines.index(line) == 1, "at the second comparison"
    assert line.startswith("slow host: process 0 (")
    assert line.endswith("for a product that the others compute in 0.0 ms")
    own = HostTimes(*json.loads(published["0"]))
    assert own.step == pytest.approx(0.2)
    assert own.waited == pytest.approx(0.01)
    assert 0 < own.product < 10


def test_a_run_of_one_process_measures_nothing(monkeypatch):
    monkeypatch.setattr(hosts, "PAUSE", 0)
    comparison = HostComparison(0)
    assert comparison.compare(1, 1.0, [1.0]) == ""
    assert comparison._multiply is None
