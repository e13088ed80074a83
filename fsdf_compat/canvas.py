"""Calls as data, put together: signatures, chains, groups, chords. Their parts are in `_canvas`."""

from __future__ import annotations

from typing import Any

from kombu.utils.uuid import uuid

from ._canvas.chain import _chain, chain
from ._canvas.chord import _chord
from ._canvas.group import group
from ._canvas.group import maybe_group as _maybe_group
from ._canvas.maps import _basemap, chunks, task_name_from, xmap, xstarmap
from ._canvas.shapes import clear_chord_option as _clear_chord_option
from ._canvas.shapes import fold_chain as _fold_chain
from ._canvas.shapes import is_empty_group as _is_empty_group
from ._canvas.shapes import maybe_unroll_group
from ._canvas.shapes import merge_chain_step as _merge_chain_step
from ._canvas.shapes import strip_chord_header_links as _strip_chord_header_links
from ._canvas.signature import Signature
from ._canvas.stamping import StampingVisitor
from ._canvas.stamping import merge_dictionaries as _merge_dictionaries
from ._upward import adopt
from .result import EagerResult, GroupResult, allow_join_result
from .utils import abstract

__all__ = (
    "Signature", "StampingVisitor", "chain", "chord", "chunks", "group", "maybe_signature",
    "maybe_subtask", "signature", "subtask", "xmap", "xstarmap",
)  # fmt: skip
chord = _chord
adopt(
    __name__, Signature, StampingVisitor, _basemap, _chain, _chord, chain, chunks, group, xmap,
    xstarmap,
)  # fmt: skip


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a signature: of a task or its name, of a dict, or a copy of one."""
    if isinstance(varies, abstract.CallableSignature):
        return varies.clone()
    if isinstance(varies, dict):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a signature of a dict, or a signature itself, or its copy; None of None."""
    if d is None:
        return None
    if isinstance(d, abstract.CallableSignature):
        made = d.clone() if clone else d
    else:
        made = signature(d) if isinstance(d, dict) else d
    if app is not None:
        made._app = app
    return made


subtask, maybe_subtask = signature, maybe_signature
