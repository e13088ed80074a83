"""A worker of the layer, in a process of its own: worker.py, told by the environment."""

from __future__ import annotations

import os
import sys

if os.environ["LAYER_MODE"] in ("gevent", "eventlet"):  # before anything else is imported
    if os.environ["LAYER_MODE"] == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if __name__ == "__main__":
    from layer import tasks

    tasks.app.consume(tasks.SLOTS, resolve="layer.tasks:resolve", preload=("layer.tasks",))
