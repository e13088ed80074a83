"""Where the SQL broker is held to what a user sees: one server after the other."""

from __future__ import annotations

import pytest

__all__ = ["broker_name"]


@pytest.fixture(params=["postgresql", "mysql"])
def broker_name(request, monkeypatch):
    monkeypatch.setenv("FSDF_SQLALCHEMY_URL", request.getfixturevalue(f"{request.param}_url"))
    return "sqlalchemy"
