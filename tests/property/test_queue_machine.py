"""Any sequence of operations leaves every message in exactly one part of its queue."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from thin import LACKS, ThinBroker

from fsdf_engine.contracts import Capability, Letter, Outgoing, Part, line_of
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.registry import brokers
from fsdf_engine.testing.deliveries import take

NAMES = ["memory", "sqlite", "redis", "redis_ack", "redis_stream", "redis_brpoplpush"]
SERVED = ["rabbitmq_pika quorum", "rabbitmq_pika classic", "rabbitmq_amqpstorm quorum"]
SQL = ["sqlalchemy postgresql", "sqlalchemy mysql"]  # on SQLite it is `sqlite` itself
MB = 1 << 20
VERDICTS = [ACK, Release(), Release(0.0, {"attempt": 1}), Release(600.0), DeadLetter("x")]


class Model:
    """What the queue should hold: sets of message numbers."""

    def __init__(self):
        self.waiting, self.delayed, self.dead = set(), set(), set()
        self.buried = set()  # those of the dead that nobody had leased
        self.leased = {}  # lease: number
        self.states = {}
        self.lines = {}  # number: priority


def letter(n, priority):
    return Letter("m", f"letter{n}", b"%d" % n, "buried", priority=priority)


def machine(make_broker):
    class Machine(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            self.broker = make_broker()
            self.broker.purge("m", Part.WAITING | Part.DELAYED | Part.LEASED | Part.DEAD)
            self.sub = self.broker.subscribe("m", lease=600.0)
            self.model, self.count, self.stale = Model(), 0, []

        def has(self, capability):
            return capability in self.broker.capabilities

        def teardown(self):
            if hasattr(self, "sub"):
                self.sub.close()
                self.broker.close()

        @rule(many=st.integers(1, 5), priority=st.integers(-9, 9), delayed=st.booleans())
        def publish(self, many, priority, delayed):
            priority = priority if self.has(Capability.PRIORITY) else 0
            delayed = delayed and self.has(Capability.DELAY)
            numbers = range(self.count, self.count + many)
            self.count += many
            options = {"priority": priority, "delay": 600.0 if delayed else 0.0}
            self.broker.publish([Outgoing("m", f"{n}", b"%d" % n, **options) for n in numbers])
            (self.model.delayed if delayed else self.model.waiting).update(numbers)
            self.model.lines.update(dict.fromkeys(numbers, line_of(priority)))

        @rule(limit=st.integers(1, 6))
        def fetch(self, limit):
            if self.has(Capability.PULL):
                found = self.sub.fetch(limit, MB)
            else:  # what is there comes, perhaps in several
                found = take(self.broker, self.sub, min(limit, len(self.model.waiting)))
            assert len(found) <= limit
            assert found or not self.model.waiting
            lines = [d.priority for d in found]
            if self.has(Capability.PULL):  # else a buffer may hold what is less urgent
                assert lines == sorted(lines, reverse=True)
            for d in found:
                assert d.priority == self.model.lines[int(d.body)]
                n = int(d.body)
                self.model.waiting.remove(n)
                assert d.lease not in self.model.leased
                self.model.leased[d.lease] = n
                assert (d.state or None) == self.model.states.get(n)
                assert d.deliveries == 0 or not self.has(Capability.COUNTED)
            left = [self.model.lines[n] for n in self.model.waiting]
            if self.has(Capability.PULL):
                assert not (found and left) or max(left) <= lines[-1]

        @rule()
        def rest(self):
            self.sub.rest()

        @precondition(lambda self: self.model.leased)
        @rule(data=st.data(), many=st.integers(1, 4))
        def settle(self, data, many):
            leases = sorted(self.model.leased, key=lambda lease: self.model.leased[lease])[:many]
            batch = []
            for lease in leases:
                verdict = data.draw(st.sampled_from(VERDICTS))
                if isinstance(verdict, Release) and not self.has(Capability.DELAY):
                    verdict = Release(0.0, verdict.state)
                batch.append((lease, verdict))
            assert not self.sub.settle(batch)
            for lease, verdict in batch:
                n = self.model.leased.pop(lease)
                self.stale.append(lease)
                if isinstance(verdict, Release):
                    self.model.states[n] = verdict.state
                    (self.model.delayed if verdict.delay else self.model.waiting).add(n)
                elif isinstance(verdict, DeadLetter):
                    self.model.dead.add(n)

        @precondition(lambda self: self.stale)
        @rule(data=st.data())
        def settle_again_changes_nothing(self, data):
            lease = data.draw(st.sampled_from(self.stale))
            if self.has(Capability.LEASE):
                assert set(self.sub.settle([(lease, Release())])) == {lease}

        @precondition(lambda self: self.model.leased)
        @rule()
        def extend(self):
            assert set(self.sub.extend(list(self.model.leased))) == set(self.model.leased)

        @rule(many=st.integers(1, 3), priority=st.integers(-9, 9))
        def bury(self, many, priority):
            numbers = range(self.count, self.count + many)
            self.count += many
            self.model.lines.update(dict.fromkeys(numbers, line_of(priority)))
            self.broker.bury([letter(n, priority) for n in numbers])
            self.model.dead.update(numbers)
            self.model.buried.update(numbers)

        @precondition(lambda self: self.model.buried)
        @rule()
        def bury_again_changes_nothing(self):
            self.broker.bury([letter(n, self.model.lines[n]) for n in self.model.buried])

        @precondition(lambda self: self.model.dead)
        @rule(all_of_them=st.booleans())
        def replay(self, all_of_them):
            letters = self.broker.dead_letters("m", 1000)
            assert sorted(int(x.body) for x in letters) == sorted(self.model.dead)
            chosen = letters if all_of_them else letters[:1]
            ids = None if all_of_them else [chosen[0].id]
            assert self.broker.replay("m", ids) == len(chosen)
            for letter in chosen:
                n = int(letter.body)
                self.model.dead.remove(n)
                self.model.buried.discard(n)
                self.model.waiting.add(n)
                self.model.states[n] = None

        @rule(part=st.sampled_from(["waiting", "delayed", "dead"]))
        def purge(self, part):
            numbers = getattr(self.model, part)
            self.sub.rest()  # what is in a buffer stays
            assert self.broker.purge("m", Part[part.upper()]) == len(numbers)
            numbers.clear()
            self.model.buried &= self.model.dead

        @invariant()
        def sizes_are_exact(self):
            if not hasattr(self, "model"):
                return
            size, model = self.broker.size("m"), self.model
            leased = len(model.leased) if self.has(Capability.LEASE) else size.leased
            if not self.has(Capability.SIZE_LEASED):
                leased = -1
            assert size == (len(model.waiting), len(model.delayed), leased, len(model.dead))
            if self.has(Capability.LISTED):
                known = size if self.has(Capability.SIZE_LEASED) else (*size[:2], len(model.leased))
                assert ("m" in self.broker.queues()) is any((*known, size.dead))

    return Machine


@pytest.mark.parametrize("name", [*NAMES, *SERVED, *SQL, *(f"thin {lack}" for lack in LACKS)])
def test_every_message_is_in_exactly_one_part(name, request, tmp_path):
    numbers = iter(range(10**6))
    url = request.getfixturevalue("redis_url") if name.startswith("redis") else ""
    if name.startswith("rabbitmq"):
        kind = name.partition(" ")[2]
        url = request.getfixturevalue("rabbitmq_url") + f"?queue_type={kind}"

    if name.startswith("sqlalchemy"):
        url = request.getfixturevalue(f"{name.partition(' ')[2]}_url")

    def make():
        if name.startswith("rabbitmq"):
            broker = brokers.load(name.partition(" ")[0])(url)
            broker.check()  # what the server grants
            return broker
        if name.startswith("thin"):
            return ThinBroker(LACKS[name.partition(" ")[2]])
        place = str(tmp_path / f"{next(numbers)}.sqlite") if name == "sqlite" else url
        return brokers.load(name.partition(" ")[0])(place)

    run_state_machine_as_test(
        machine(make),
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
