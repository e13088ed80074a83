"""A long storm by hand: PYTHONPATH=.:tests python -m chaos redis_ack --seconds 600."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from chaos.storm import Storm
from helpers import RedisServer
from own_servers import OwnServer

SQL = ("postgresql", "mariadb")


def main() -> int:
    """Run one storm; say what it showed. The exit code is 1 where something is at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker", help=f"sqlite, redis_*, {' or '.join(SQL)}")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fsdf-chaos-"))
    server: RedisServer | OwnServer | None = None
    if options.broker in SQL:
        server = OwnServer(options.broker)
    elif options.broker != "sqlite":
        server = RedisServer(folder, aof=True, config={"appendfsync": "always"})
    if server:
        server.start()
    print(f"{options.broker}, seed {options.seed}, ledger and logs in {folder}", flush=True)
    kind = "sqlalchemy" if options.broker in SQL else options.broker
    storm = Storm(kind, folder, server, options.seed)
    try:
        verdict = storm.rage(options.seconds)
    finally:
        storm.close()
        if server:
            server.stop() if isinstance(server, RedisServer) else server.close()
    print(
        f"faults {storm.faults}; stored {len(storm.published.stored)},"
        f" unknown {len(storm.published.unknown)}, repeated {verdict.repeated},"
        f" all done {storm.calm:.1f} s after the last fault"
    )
    for name, found in verdict.faults().items():
        print(f"{name}: {len(found)}: {found[:5]}")
    return 1 if verdict.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
