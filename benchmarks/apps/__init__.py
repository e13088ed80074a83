"""One module per contestant, written as its documentation tells a user to.

Each has a no-op task that does nothing but `hit(n)`, and these functions for benchmarks.client
(plain or `async def`):

- `publish(numbers)`: publish one message per number by the ordinary call, one after the other;
- `publish_many(numbers)`: the same in the fastest documented way; optional, defaults to `publish`;
- `round_trips(numbers) -> list[float]`: publish, wait for the result, next; seconds each.

`BENCH_RESULTS=1` turns results on. `BENCH_ROLE` is `worker` or `client`.
"""
