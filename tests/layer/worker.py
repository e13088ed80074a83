"""A worker of the layer, in a process of its own: worker.py, told by the environment."""

from __future__ import annotations

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from layer.patching import patch  # noqa: E402

patch(os.environ["LAYER_MODE"])  # before anything else is imported

if __name__ == "__main__":
    from layer import tasks

    tasks.app.consume(tasks.SLOTS, resolve="layer.tasks:resolve", preload=("layer.tasks",))
