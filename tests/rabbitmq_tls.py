"""RabbitMQ behind TLS, by a certificate of the tests' own, which is theirs for a hundred years."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from chaos.proxy import Proxy

__all__ = ["CERTIFICATE", "secured"]
FOLDER = Path(__file__).parent / "tls"
CERTIFICATE = FOLDER / "cert.pem"


@contextmanager
def secured(url: str) -> Iterator[str]:
    """Yield a URL that speaks TLS to the server of a plain one; without options."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, FOLDER / "key.pem")
    parts = urlsplit(url)
    proxy = Proxy(parts.port or 5672, context)
    try:
        yield f"amqps://{parts.username}:{parts.password}@localhost:{proxy.port}{parts.path}"
    finally:
        proxy.close()
