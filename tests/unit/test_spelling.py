"""No form of a URL shows its password, wherever one is shown."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fsdf_engine import Engine, patch_frame_config, task_deco
from fsdf_engine.brokers.redis_route import Route
from fsdf_engine.brokers.sqlite_file import path_of
from fsdf_engine.config import Config
from fsdf_engine.errors import ConfigurationError, FsdfError
from fsdf_engine.spelling import masked

MARKS = ("sesame", "b4rley", "Öffne", "r0sin")
PASSWORDS = st.lists(
    st.one_of(st.sampled_from(MARKS), st.text(alphabet="@/?#:&=%;,.[]\n \\'\"", max_size=3)),
    min_size=1, max_size=6,
).map("".join).filter(bool)  # fmt: skip
SCHEMES = st.sampled_from([
    "redis", "REDIS", "rediss", "unix", "redis+sentinel", "redis+cluster", "amqp", "mongodb+srv",
    "mysql+pymysql", "x",
])  # fmt: skip
NAMES = st.sampled_from(["", "user", "a.b-c", "user name"])
PLACES = st.sampled_from(
    ["h", "h:6379/0", "[::1]:1/0", "/tmp/s", "h1:1,h2:2/service/0", "", "h/0?db=1", "h?x=y"]
)
OPTIONS = st.sampled_from(
    ["password", "passwd", "sentinel_password", "Password", "unknown", "db", "client_name"]
)
CREDENTIALS = st.sampled_from([
    "{scheme}://{name}:{password}@{place}",
    "{scheme}://{password}@{place}",
    "{scheme}://{password}:@{place}",
    "{scheme}:{name}:{password}@{place}",
    "{scheme}//{name}:{password}@{place}",
    "{scheme}:/{name}:{password}@{place}",
    "{name}:{password}@{place}",
    "{password}@{place}",
    "{scheme}://h1:1,{name}:{password}@{place}",
    "{scheme}://{name}:{password}@h1,{name}:{password}@{place}",
    "words before {scheme}://{name}:{password}@{place}",
])  # fmt: skip


def shows(text: str, password: str) -> bool:
    """Say whether any part of the password that is more than a sign or two can be read."""
    return any(mark in text for mark in MARKS if mark in password)


@given(CREDENTIALS, SCHEMES, NAMES, PASSWORDS, PLACES)
@example("{scheme}://{password}@{place}", "redis", "", "sesame", "h:6379/0")
@example("{scheme}://{name}:{password}@{place}", "redis", "", "ses\name/sesame", "h")
@example("{scheme}://{name}:{password}@{place}", "redis", "", "a?password=sesame", "h")
def test_no_url_shows_its_credentials(form, scheme, name, password, place):
    assume(not (form.startswith("{password}") and password[0] in "/.~"))  # a path, to anybody
    if ":{password}" not in form:
        password = password.replace(":", "")  # what precedes a colon is a user's name, to anybody
    url = form.format(scheme=scheme, name=name, password=password, place=place)
    assert not shows(masked(url), password), masked(url)


@given(SCHEMES, st.sampled_from(["h", "h:1/0", "u:sesame@h/0", ""]), OPTIONS, PASSWORDS)
@example("redis", "h", "passwd", "sesame")
@example("redis", "h", "password", "&sesame=sesame")
def test_no_url_shows_the_passwords_of_its_options(scheme, place, option, password):
    if option in ("db", "client_name"):
        option, password = f"{option}=1&{option}_", f"{password}sesame"
    shown = masked(f"{scheme}://{place}?{option}={password}&db=1")
    assert not shows(shown, f"{password}sesame"), shown


@pytest.mark.parametrize("url", ["redis://:sesame", "redis://user:sesame", "redis://h:sesame/0"])
def test_what_stands_for_a_port_and_is_none_is_hidden(url):
    assert "sesame" not in masked(url)


@pytest.mark.parametrize(
    "text",
    [
        "", "15.0", "INFO", "sqlite", "/path/to:a@b.sqlite", "./a@b.sqlite", "C:\\data\\a@b.sqlite",
        "redis://127.0.0.1:6379/0", "redis://[::1]:6379/0?db=1&socket_timeout=2.5", "unix:///tmp/s",
        "redis+sentinel://h1:1,h2:2/service/0", "sqlite:////var/lib/x.sqlite", "memory://",
        "rediss://h:1/0?ssl_ca_certs=/etc/ca.pem",
    ],
)  # fmt: skip
def test_text_without_a_password_is_unchanged(text):
    assert masked(text) == text


@given(CREDENTIALS, SCHEMES, NAMES, PASSWORDS, PLACES)
@example("{scheme}://{name}:{password}@{place}", "redis", "", "12/sesame", "h:1")
@example("{scheme}://{name}:{password}@{place}", "unix", "", "12/sesame", "/tmp/s")
@example("{scheme}://{name}:{password}@{place}", "unix", "", "@/sesame", "h")
@example("{scheme}://:{password}", "redis", "", "sesame", "h")
@example("{password}@{place}", "redis", "", "/sesame", "h")
def test_no_error_of_the_redis_client_shows_a_password(form, scheme, name, password, place):
    if ":{password}" not in form:
        password = password.replace(":", "")
    url = form.format(scheme=scheme, name=name, password=password, place=place)
    try:
        route = Route(url, "")
    except FsdfError as error:
        assert not shows(str(error), password), str(error)
    else:  # it is what is shown when the server cannot be reached
        where = {**route._options, "password": "", "username": ""}
        assert not shows(f"{where} {route.masked}", password)


def test_url_that_is_no_path_is_refused_by_sqlite_and_not_shown():
    with pytest.raises(ConfigurationError, match="give a path") as caught:
        path_of("redis://:sesame@h:1/0")
    assert "sesame" not in str(caught.value)


def test_no_object_that_knows_a_url_shows_its_password():
    url = "redis://:sesame@h:1/0"
    config = Config({"REDIS_URL": url})
    patch_frame_config(REDIS_URL=url)
    task = task_deco("q", broker_kind="redis", broker_url=url, result_url=url)(print)
    engine = Engine({"REDIS_URL": url})
    broker = engine.broker("redis")
    for thing in (config, task, task.options, engine, engine.config, broker, config.find("LEASE")):
        assert "sesame" not in f"{thing} {thing!r}"


@pytest.mark.parametrize("value", [b"redis://:sesame@h", ["redis://:sesame@h"], {"p": "sesame"}])
def test_value_of_a_wrong_type_is_not_shown(value):
    with pytest.raises(ConfigurationError, match="REDIS_URL is of type") as caught:
        Config({"REDIS_URL": value})
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("redis://h:1/0?socket_connect_timeout=4.0&socket_timeout=4.0", "redis://h:1/0"),
        ("redis://h:1?socket_timeout=4.0&db=3", "redis://h:1?db=3"),
        ("unix:///path?db=2&socket_timeout=4", "unix:///path?db=2"),
        ("redis://h:1/0?db=3", "redis://h:1/0?db=3"),
    ],
)
def test_how_long_to_wait_is_no_part_of_the_place_that_is_told(given, shown):
    assert Route(given, "").masked == shown
