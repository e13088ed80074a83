"""The loader of the app that is there when nobody has made one."""

from __future__ import annotations

import os
import warnings
from typing import Any

from ..exceptions import NotConfigured
from ..utils.collections import DictAttribute
from ..utils.serialization import strtobool
from .base import BaseLoader

__all__ = ["DEFAULT_CONFIG_MODULE", "Loader"]

DEFAULT_CONFIG_MODULE = "celeryconfig"

#: Whether a missing module of settings is worth a warning.
C_WNOCONF = strtobool(os.environ.get("C_WNOCONF", False))


class Loader(BaseLoader):
    """Reads settings from the module that `CELERY_CONFIG_MODULE` names, else `celeryconfig`."""

    def setup_settings(self, settingsdict: Any) -> Any:
        """Return settings as a map."""
        return DictAttribute(settingsdict)

    def read_configuration(self, fail_silently: Any = True) -> Any:
        """Return the settings of that module; none if there is no such module.

        Raises: ImportError: there is none, and `fail_silently` is false.
        """
        name = os.environ.get("CELERY_CONFIG_MODULE", DEFAULT_CONFIG_MODULE)
        try:
            module = self._import_config_module(name)
        except ImportError:
            if not fail_silently:
                raise
            # In the children of a pool the parent has warned.
            if C_WNOCONF and not os.environ.get("FORKED_BY_MULTIPROCESSING"):
                text = f"No {name} module found! Please make sure it exists and Python can find it."
                warnings.warn(NotConfigured(text), stacklevel=2)
            return self.setup_settings({})
        self.configured = True
        return self.setup_settings(module)
