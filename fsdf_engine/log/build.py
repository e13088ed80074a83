"""From a task's options and the configuration to the reports of its consumer."""

from __future__ import annotations

import logging
import os
import re
import shlex
from typing import TYPE_CHECKING

from ..contracts import Broker, Capability
from ..core.consumer import Consumer
from ..errors import MissingExtra
from ..options import TaskOptions
from ..spelling import masked
from .files import rotating_file
from .record import BESIDE, RunContext, TextFormatter, logger_of
from .reports import Reports

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["report_of"]
log = logging.getLogger("fsdf.log")


def report_of(
    consumer: Consumer, broker: Broker, options: TaskOptions, config: Config, kind: str
) -> Reports:
    """Return the reports of a consumer; `kind` is its broker's name."""
    queue = consumer.queue
    logger = logger_of(queue, options.logger_prefix)
    if options.log_level is not None:
        logger.setLevel(options.log_level)
    if options.create_logger_file:
        _add_file(logger, config)
    look = "the task's dead_letters()"
    if Capability.SHARED in broker.capabilities:
        url = ["--url", masked(options.broker_url)] if options.broker_url else []
        more = [*(["--broker", kind] if options.broker_kind is not None else []), *url]
        look = shlex.join(["fsdf", "dead", "list", queue, *more])
    return Reports(
        consumer,
        logger,
        size=lambda: broker.size(queue),
        interval=config.number("LOG_INTERVAL"),
        look=look,
        shows=options.is_show_message_get_from_broker,
    )


def _add_file(logger: logging.Logger, config: Config) -> None:
    """Let what the logger tells go to a file of its name, too. Without its library only warn."""
    name = re.sub(r"[^\w.-]+", "_", logger.name)
    path = os.path.join(config.text("LOG_FOLDER"), f"{name}.log")
    if any(handler.name == BESIDE + path for handler in logger.handlers):
        return
    size, count = int(config.number("LOG_FILE_SIZE")), int(config.number("LOG_FILE_COUNT"))
    try:
        handler = rotating_file(path, size, count)
    except MissingExtra as error:
        log.warning("%s", error)
        return
    handler.name = BESIDE + path
    handler.addFilter(RunContext())
    handler.setFormatter(TextFormatter())
    logger.addHandler(handler)
    log.info("what %s logs also goes to %s", logger.name, path)
