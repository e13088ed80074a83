"""How the servers that the tests need are installed and run.

`scripts/services` keeps one of each; tests that stop and kill servers run some of their own. A new
server is one subclass of Server, and its place in SERVERS.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import IO

from .server import BOUND, LOOPBACK, Server, ask, listens, within


class Redis(Server):
    name = "redis"
    programs = ("redis-server",)
    packages = ("redis-server",)
    oldest = (6, 2)
    wanted = (16379,)

    def commands(self) -> list[list[str]]:
        options = {"bind": LOOPBACK, "port": self.port, "dir": self.data}
        options |= {"save": "", "appendonly": "no"}
        given = [str(part) for k, v in options.items() for part in (f"--{k}", v)]
        return [[self.needed(), *given]]

    def healthy(self) -> bool:
        return ask(self.port, b"PING\r\n").startswith(b"+PONG")

    def variables(self) -> dict[str, str]:
        return {"FSDF_TEST_REDIS_URL": f"redis://{LOOPBACK}:{self.port}/0"}


class RabbitMQ(Server):
    """A node of its own: its own cookie, its own epmd, whose port is one of `ports`.

    epmd is started here, and first: the one that a node starts would outlive it. The management
    plug-in makes vhosts in some milliseconds, which the command line takes seconds for.
    consumer_timeout is the shortest that the tests need; the server looks at it each
    channel_tick_interval only.
    """

    name = "rabbitmq"
    # Not the wrapper on PATH, which changes to another user and to that one's folder.
    programs = ("/usr/lib/rabbitmq/bin/*rabbitmq-server", "rabbitmq-server")
    packages = ("rabbitmq-server",)
    oldest = (3, 10)
    wanted = (15672, 15673, 15674, 15675)
    user = "rabbitmq"

    @classmethod
    def version(cls) -> str:
        # Asking the program takes a second; its folder has the version in its name.
        found = re.findall(
            r"rabbitmq(?:_server)?[-/](\d+(?:\.\d+)+)", os.path.realpath(cls.needed())
        )
        return found[-1] if found else "0"

    def prepare(self) -> None:
        lines = {
            "listeners.tcp.1": f"{LOOPBACK}:{self.port}",
            "management.tcp.ip": LOOPBACK,
            "management.tcp.port": self.ports[1],
            "consumer_timeout": 60_000,
            "log.console": "true",
            "log.console.level": "warning",
            "vm_memory_high_watermark.absolute": "2GB",
            "disk_free_limit.absolute": "50MB",
            "loopback_users": "none",
        }
        self.own(self.data, self.data / "home")
        config = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.data / "rabbitmq.conf").write_text(config)
        (self.data / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def commands(self) -> list[list[str]]:
        epmd = shutil.which("epmd") or "epmd"
        return [[epmd, "-address", LOOPBACK, "-port", str(self.ports[3])], [self.needed()]]

    def launch(self, output: IO[bytes] | int) -> list[subprocess.Popen[bytes]]:
        epmd, server = self.commands()
        beside = self.spawn(epmd, output)
        within(BOUND, lambda: listens(self.ports[3]) or beside.poll() is not None)
        return [beside, self.spawn(server, output)]

    def environment(self) -> dict[str, str]:
        local = "-kernel inet_dist_use_interface {127,0,0,1}"
        paths = {
            "HOME": "home",  # of the cookie
            "RABBITMQ_BASE": "",
            "RABBITMQ_MNESIA_BASE": "mnesia",
            "RABBITMQ_LOG_BASE": "log",
            "RABBITMQ_PID_FILE": "pid",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": "schema",
        }
        return {name: str(self.data / path) for name, path in paths.items()} | {
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODENAME": f"fsdf{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.ports[2]),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self.ports[3]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{local} -rabbit channel_tick_interval 1000",
            "RABBITMQ_CTL_ERL_ARGS": local,
        }

    def healthy(self) -> bool:
        if not ask(self.port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01"):
            return False
        with suppress(OSError, urllib.error.URLError):
            return self.call("GET", "health/checks/alarms") == 200
        return False

    def call(self, method: str, path: str) -> int:
        """Ask the management interface; return the status. The user is guest."""
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self.ports[1]}/api/{path}", method=method
        )
        request.add_header("Authorization", f"Basic {b64encode(b'guest:guest').decode()}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)

    def variables(self) -> dict[str, str]:
        return {
            "FSDF_TEST_RABBITMQ_URL": f"amqp://guest:guest@{LOOPBACK}:{self.port}/",
            "FSDF_TEST_RABBITMQ_API": f"http://guest:guest@{LOOPBACK}:{self.ports[1]}/api",
        }


class PostgreSQL(Server):
    name = "postgresql"
    programs = ("/usr/lib/postgresql/*/bin/postgres", "postgres")
    packages = ("postgresql",)
    oldest = (13,)
    wanted = (15432,)
    user = "postgres"
    ending = signal.SIGINT  # SIGTERM waits until all clients have gone

    def prepare(self) -> None:
        initdb = str(Path(self.needed()).resolve().with_name("initdb"))
        options = ("-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.copy_template(lambda data: self.run(initdb, "-D", str(data), *options))

    def commands(self) -> list[list[str]]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",  # a socket's path may have 107 bytes only
            "max_connections": 200,
            "max_prepared_transactions": 10,
        }
        given = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        return [[self.needed(), "-D", str(self.data), *given]]

    def healthy(self) -> bool:
        # A start-up packet of version 3.0; "R" asks for a password or says that none is needed.
        body = b"\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
        return ask(self.port, (len(body) + 4).to_bytes(4, "big") + body).startswith(b"R")

    def variables(self) -> dict[str, str]:
        url = f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres"
        return {"FSDF_TEST_POSTGRESQL_URL": url}


class MariaDB(Server):
    name = "mariadb"
    programs = ("mariadbd",)
    packages = ("mariadb-server",)
    oldest = (10, 6)
    wanted = (13306,)
    user = "mysql"

    def prepare(self) -> None:
        install = shutil.which("mariadb-install-db") or "mariadb-install-db"
        options = ("--auth-root-authentication-method=normal", "--skip-test-db")
        self.copy_template(
            lambda data: self.run(
                install,
                "--no-defaults",
                f"--datadir={data}",
                *options,
                "--innodb-log-file-size=16M",
            )
        )

    def commands(self) -> list[list[str]]:
        options = {
            "datadir": self.data,
            "port": self.port,
            "bind-address": LOOPBACK,
            "socket": "socket",  # in the data folder: its whole path might be too long
            "pid-file": "pid",
            "max-connections": 300,
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "16M",
        }
        given = [f"--{key}={value}" for key, value in options.items()]
        return [[self.needed(), "--no-defaults", *given, "--skip-name-resolve"]]

    def healthy(self) -> bool:
        return ask(self.port, b"")[4:5] == b"\x0a"  # its greeting, of protocol 10

    def variables(self) -> dict[str, str]:
        return {"FSDF_TEST_MYSQL_URL": f"mysql://root@{LOOPBACK}:{self.port}/mysql"}


SERVERS: dict[str, type[Server]] = {
    server.name: server for server in (Redis, RabbitMQ, PostgreSQL, MariaDB)
}
