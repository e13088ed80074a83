"""funboost's own configuration file: found by its name on sys.path."""

import logging
import os

from funboost.funboost_config_deafult import BrokerConnConfig as _Connections
from funboost.funboost_config_deafult import FunboostCommonConfig as _Common


class BrokerConnConfig(_Connections):
    REDIS_HOST = os.environ["BENCH_REDIS_HOST"]
    REDIS_PORT = int(os.environ["BENCH_REDIS_PORT"])
    REDIS_URL = f"redis://{REDIS_HOST}:{REDIS_PORT}/{_Connections.REDIS_DB}"


class FunboostCommonConfig(_Common):
    SHOW_HOW_FUNBOOST_CONFIG_SETTINGS = False
    FUNBOOST_PROMPT_LOG_LEVEL = logging.ERROR
    KEEPALIVETIMETHREAD_LOG_LEVEL = logging.ERROR
