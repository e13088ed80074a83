"""The rate valve, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsdf_engine.controls.rate import Rate


def simulate(qps, seconds, late=lambda n: 0.0):
    """Return the instants at which starts happen when the caller is late by `late(n)`."""
    rate, now, starts, n = Rate(qps), 1000.0, [], 0
    while now < 1000.0 + seconds:
        granted, again = rate.permits(500, now)
        if granted:
            for _ in range(granted):
                now += late(n)
                [at] = rate.starts(1, now)
                now = max(now, at)
                starts.append(now)
                n += 1
        else:
            now += again
    return starts


def worst_second(starts):
    worst = first = 0
    for n, at in enumerate(starts):
        while starts[first] <= at - 1.0 + 1e-9:
            first += 1
        worst = max(worst, n - first + 1)
    return worst


@pytest.mark.parametrize("qps", [0.5, 1, 7, 30, 100, 1000, 5000])
def test_rate_is_exact_over_half_a_minute(qps):
    starts = simulate(qps, 30.0)
    assert abs(len(starts) - 30 * qps) <= max(1, 0.001 * 30 * qps)
    assert worst_second(starts) <= qps + 1 + 0.01 * qps


@pytest.mark.parametrize("qps", [7, 100, 1000])
def test_lost_starts_are_made_up_slowly(qps):
    starts = simulate(qps, 30.0, late=lambda n: 0.2 if n == int(qps) * 5 else 0.0)
    assert abs(len(starts) - 30 * qps) <= 1 + 0.01 * 30 * qps
    assert worst_second(starts) <= qps * 1.01 + 1.001


@given(st.dictionaries(st.integers(0, 2900), st.floats(0, 0.05), max_size=20))
@example({500: 0.3, 1500: 0.03})  # made up while it is late again: as many as there can be
@settings(max_examples=30)
def test_no_second_has_more_than_the_schedule_allows(delays):
    starts = simulate(1000.0, 3.0, late=lambda n: delays.get(n, 0.0))
    gaps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    assert min(gaps) >= 0
    assert worst_second(starts) <= 1 + 1006.1


def test_permits_reserve_nothing_and_idle_time_is_not_saved_up():
    rate = Rate(100.0)
    rate.starts(rate.permits(1, 1000.0)[0], 1000.0)
    later = 1060.0
    assert rate.permits(30, later)[0] >= 1  # the queue was empty: nobody calls starts
    granted, _ = rate.permits(30, later + 0.001)
    assert granted <= 2
