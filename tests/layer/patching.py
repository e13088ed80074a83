"""What a mode needs done before anything else is imported."""

from __future__ import annotations


def patch(mode: str) -> None:
    """Let the standard library be the hub's, in a mode that has one."""
    if mode == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif mode == "eventlet":
        import eventlet

        eventlet.monkey_patch()
