"""Side by side: fsdf and the task queues its users come from, measured in the same way.

`python -m benchmarks --help` is the one command; every figure in the README comes from it.
"""
