"""Client libraries that block: as they are, or as they would be if nothing were patched."""

from __future__ import annotations

import pymysql
import pytest
from green import LIBRARIES, run_patched

from fsdf_engine.unpatched import unpatched


@pytest.mark.parametrize("library", LIBRARIES)
def test_patched_suite_passes(library: str, mysql_server: str, monkeypatch) -> None:
    monkeypatch.setenv("FSDF_TEST_MYSQL_URL", mysql_server)
    run_patched(library, "tests/unit/patched_clients.py")


def test_where_nothing_is_patched_it_is_the_module_itself() -> None:
    assert unpatched("pymysql") is pymysql
    with pytest.raises(ModuleNotFoundError, match="no_such_client"):
        unpatched("no_such_client")
