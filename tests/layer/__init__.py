"""A layer on top of the engine, as small as one can be: it stands for what a real one does.

It has a wire form, a runner, sinks, a layout and groups of its own, and uses the public ports only.
"""
