"""The worker."""

from .worker import WorkController

__all__ = ("WorkController",)
