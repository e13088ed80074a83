"""A broker and a result store with switches, for the failure model of the outbox."""

from __future__ import annotations

import json

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Codec, Outgoing
from fsdf_engine.errors import Unavailable
from fsdf_engine.stores.memory_marks import MemoryMarks


class Results:
    """A result store; `broken` makes it fail, a `log` shared with others shows the order."""

    def __init__(self, log=None):
        self._marks = MemoryMarks()
        self.records, self.log, self.broken = {}, log if log is not None else [], None

    def together(self, subscription):
        return None

    def write(self, records):
        if self.broken and (error := self.broken(records)):
            raise error
        for record in records:
            self.log.append(record)
            self.records[record.id] = record

    def read(self, ids, *, final=False, layout=""):
        if self.broken and (error := self.broken([])):
            raise error
        return {id: self.records[id].body for id in ids if id in self.records}

    def marks(self):
        return self._marks

    def told(self, id):
        return json.loads(self.records[id].body)

    def statuses(self):
        return sorted(json.loads(r.body)["status"] for r in self.records.values())


class Loud(MemoryBroker):
    """A memory broker with switches: `broken` settle, `lose` leases; it logs what it is told."""

    def __init__(self, log=None):
        super().__init__()
        self.log = log if log is not None else []
        self.broken = self.lose = False

    def publish(self, batch):
        super().publish(batch)
        self.log += batch

    def subscribe(self, queue, *, lease):
        sub = super().subscribe(queue, lease=lease)
        settle, extend = sub.settle, sub.extend

        def loud_settle(batch):
            if self.broken:
                raise Unavailable("down")
            self.log += batch
            return settle(batch)

        sub.settle = loud_settle
        sub.extend = lambda leases: () if self.lose else extend(leases)
        return sub


def bodies(count, queue="q"):
    return [
        Outgoing(queue, str(n), b'{"n":%d,"extra":{"task_id":"%d"}}' % (n, n)) for n in range(count)
    ]


class ListForm(Codec):
    """A wire form of its own: [control data, arguments]."""

    def envelope(self, body, headers):
        found = json.loads(body)
        return (found[0], found[1]) if type(found) is list else None

    def arguments(self, job):
        return job.kept, {}

    def again(self, job, changes):
        body = json.dumps([{**job.extra, **changes}, job.kept]).encode()
        sent = job.delivery
        return Outgoing(job.plan.queue, "", body, sent.headers, priority=sent.priority)

    def replayed(self, body):
        control, arguments = json.loads(body)
        return json.dumps([{**control, "sends": control.get("sends", 0) + 1}, arguments]).encode()
