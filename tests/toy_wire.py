"""A layer's wire form of its own: an array of a mark, control data in its words, and two kinds of
arguments. `Troubled` does with them what the message's headers say."""

from __future__ import annotations

import json
import os
import threading

from fsdf_engine.contracts import Codec, Outgoing

MARK = "toy"
WORDS = {
    "task_id": "id", "task": "name", "publish_time": "at", "reply": "back", "expires": "until",
    "headers": "more", "sends": "lives", "attempt": "tries", "crashes": "deaths", "pushes": "sent",
    "limits": "limits",
}  # fmt: skip


def body_of(args, kwargs, control):
    told = {WORDS[key]: value for key, value in control.items() if value}
    return json.dumps([MARK, told, list(args), dict(kwargs)]).encode()


def message(args=(), kwargs=None, control=None, queue="toys", **options):
    control = control or {}
    body = body_of(args, kwargs or {}, control)
    return Outgoing(queue, control.get("task_id", ""), body, **options)


class Listed(Codec):
    def envelope(self, body, headers):
        if not body.startswith(b'["toy"'):
            return None
        _, told, args, kwargs = json.loads(body)
        if (type(told), type(args), type(kwargs)) != (dict, list, dict):
            raise ValueError("a toy is a mark, an object, an array and an object")
        return {key: told[word] for key, word in WORDS.items() if word in told}, (args, kwargs)

    def arguments(self, job):
        return job.kept

    def again(self, job, changes):
        extra, (args, kwargs) = self.envelope(job.delivery.body, None)
        given = dict(changes)
        queue = given.pop("queue", job.plan.queue)
        priority = given.pop("priority", job.delivery.priority)
        if given.keys() & {"args", "kwargs"}:
            args, kwargs = given.pop("args", ()), given.pop("kwargs", {})
        if unknown := given.keys() - WORDS.keys():
            raise KeyError(*unknown)
        return message(args, kwargs, {**extra, **given}, queue, priority=priority)

    def replayed(self, body):
        extra, (args, kwargs) = self.envelope(body, None)
        counts = {"sends": extra.get("sends", 0) + 1, "attempt": 0, "crashes": 0, "pushes": None}
        return body_of(args, kwargs, {**extra, **counts})


class Troubled(Listed):
    """Decodes nothing that is in trouble."""

    stay = threading.Event()

    def arguments(self, job):
        match job.extra.get("headers", {}).get("trouble"):
            case "raise":
                raise ValueError("no arguments here")
            case "exit":
                raise SystemExit(3)
            case "die":
                os._exit(3)
            case "hang":
                while not self.stay.wait(0.002):  # an exception lands between two waits
                    pass
            case "nonsense":
                return 5
        return job.kept
