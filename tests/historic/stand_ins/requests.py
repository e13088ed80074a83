"""In place of the HTTP client that one of the scripts uses: answers at once, from here."""

from __future__ import annotations


class Response:
    """What `get` returns."""

    text = "<?xml version='1.0'?>"


def get(url: str) -> Response:
    """Answer without a network."""
    return Response()
