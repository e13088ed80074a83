"""What is told of a URL of an SQL database that is wrong, before any server is asked."""

from __future__ import annotations

import pytest

from fsdf_engine import task_deco
from fsdf_engine.brokers.sql_database import SqlDatabase
from fsdf_engine.brokers.sql_place import place_of
from fsdf_engine.errors import ConfigurationError, ServerRefused, Unavailable

NOBODY = "127.0.0.1:1"  # no server listens


@pytest.mark.parametrize(
    ("url", "name", "meant"),
    [
        (f"postgresql://{NOBODY}/shop?pool_sise=3", "pool_sise", "pool_size"),
        (f"postgresql://{NOBODY}/shop?sslmod=require", "sslmod", "sslmode"),
        (f"postgresql://{NOBODY}/shop?autocommit=1", "autocommit", ""),
        (f"mysql://root@{NOBODY}/shop?ssl_caa=3", "ssl_caa", "ssl_ca"),
        (f"mariadb://root@{NOBODY}/shop?ssl_cypher=x", "ssl_cypher", "ssl_cipher"),
    ],
)
def test_an_option_that_no_client_has_is_told_to_who_pushes(url, name, meant):
    task = task_deco("q", broker_kind="sqlalchemy", broker_url=url)(lambda: None)
    with pytest.raises(ConfigurationError) as caught:
        task.push()
    text = str(caught.value)
    assert text.startswith(f"option {name!r} in broker_url or SQLALCHEMY_URL is unknown; ")
    assert not meant or text.endswith(f"; did you mean {meant!r}?")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://{NOBODY}/shop?sslmode=prefer&application_name=x&options=-cgeqo%3Doff"
        "&target_session_attrs=any&keepalives=0&pool_size=2&schema=s",
        f"postgresql:///shop?host={NOBODY}&host=127.0.0.1:2",
        f"mysql://root@{NOBODY}/shop?read_timeout=3&charset=utf8&ssl_check_hostname=false"
        "&local_infile=1&pool_size=2",
    ],
)
def test_the_clients_own_options_are_taken(url):
    with pytest.raises(Unavailable, match="cannot be reached"):
        SqlDatabase(url).connect()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://me:s3cret@h/d?read_timeout=long", "'long'"),
        ("postgresql://me:s3cret@h/d?port=x", "port"),
        ("postgresql://me:s3cret@/d?host=a:1&host=b:2&port=1,2,3", "multihost"),
    ],
)
def test_an_option_that_cannot_be_read_is_an_error_of_the_url(url, told):
    with pytest.raises(ConfigurationError, match=rf"cannot be read \(.*{told}") as caught:
        place_of(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("option", ["sslmode=reqire", "keepalives=x", "target_session_attrs=one"])
def test_a_value_that_postgresqls_client_does_not_know_is_no_outage(option):
    with pytest.raises(ServerRefused, match="invalid .*; correct broker_url or SQLALCHEMY_URL"):
        SqlDatabase(f"postgresql://{NOBODY}/d?{option}").connect()


@pytest.mark.parametrize("file", ["/no/such.pem", __file__])
def test_certificates_that_cannot_be_loaded_are_no_outage(file):
    with pytest.raises(ConfigurationError, match="certificates of .* cannot be loaded"):
        SqlDatabase(f"mysql://{NOBODY}/d?ssl_ca={file}").connect()


@pytest.mark.parametrize("end", ["", "/", "?connect_timeout=3"])
def test_mysql_without_a_database_is_refused_as_its_url_is_read(end):
    with pytest.raises(
        ConfigurationError, match=r"no database; write mysql://\S+/database"
    ) as told:
        place_of(f"mysql://root:s3cret@127.0.0.1{end}")
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://me@h", "mysql://h/d", "mysql://h?database=d", "mysql://h?read_default_file=/f"],
)
def test_a_database_may_be_named_elsewhere_than_in_the_path(url):
    place_of(url)
