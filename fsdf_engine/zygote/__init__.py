"""The zygote: a process that has imported what a worker command needs, and becomes its children.

It is forked by the command's only thread, before the engine has connections and threads, and waits.
It forks others like itself on request, and each becomes a child when it is told what that is to do.
So a child needs no import, shares what it does not change, and is there at once.

They are forked in two steps, and the process between ends at once, so that they are the worker's
own children: while a request lasts the worker is the subreaper of its descendants, see prctl(2). It
follows the worker's life, and the worker collects exit codes. A zygote is nobody's parent and knows
nothing: it may die at any time, and the next one takes its place. Linux only.
"""

from .context import start_zygote

__all__ = ["start_zygote"]
