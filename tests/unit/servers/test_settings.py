"""Settings of servers: what is accepted, and how a mistake is named."""

from __future__ import annotations

import pytest

from certrail.configuration.endpoint import KINDS_THAT_ENABLE_TLS
from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.nginx import NginxSettings, NginxTarget
from certrail.servers.nginx.control import words_of
from certrail.servers.registry import check_settings, kinds, open_target, site_of


@pytest.mark.parametrize(
    ("server", "words"),
    [
        pytest.param({"confg": "/x"}, "confg: unknown field", id="typo"),
        pytest.param({"config": "nginx.conf"}, "config: must be an absolute path", id="relative"),
        pytest.param({"directory": "/x/$host"}, "directory: must not contain", id="variable"),
        pytest.param({"listen": "70000"}, "listen: .*no port between", id="port"),
        pytest.param({"key_mode": "0644"}, "key_mode: must let the owner read", id="open key"),
        pytest.param({"key_owner": "a b"}, "key_owner: must be the name", id="owner"),
        pytest.param({"keep_versions": 0}, "keep_versions: ", id="no version kept"),
        pytest.param({"reload": "now"}, "reload: ", id="unknown way to reload"),
        pytest.param({"binary": "-x"}, "binary: must be a name", id="option as program"),
    ],
)
def test_a_bad_setting_is_named(server: dict[str, object], words: str) -> None:
    """A typo that is silently ignored is found months later."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        open_target(LocalHost("here"), {"kind": "nginx", "site": "a.test", **server})

    assert "keep_versions" in caught.value.remedy


def test_defaults_and_spellings() -> None:
    """YAML turns 443 and 0640 into numbers."""
    settings = NginxSettings.parse({"kind": "nginx", "listen": 443, "key_mode": 0o640})

    assert settings.listen == "443"
    assert 0o640 == settings.key_mode == NginxSettings.parse({"key_mode": "0640"}).key_mode
    assert settings.base == "/etc/nginx/certrail"
    assert NginxSettings.parse({"config": "/opt/n/nginx.conf"}).base == "/opt/n/certrail"


@pytest.mark.parametrize("server", [{}, {"kind": "ngnix"}])
def test_an_unknown_kind_lists_the_known_ones(server: dict[str, object]) -> None:
    """The message is the documentation people read first."""
    with pytest.raises(InvalidRequest) as caught:
        open_target(LocalHost("here"), server)

    assert all(kind in caught.value.remedy for kind in kinds())


def test_a_kind_opens_its_target() -> None:
    """The registry is the only place that knows the kinds."""
    target = open_target(LocalHost("here"), {"kind": "nginx", "site": "a.test"})

    assert isinstance(target, NginxTarget)


def test_a_site_has_a_stable_id() -> None:
    """Locks, history and inventory refer to it."""
    server: dict[str, object] = {"kind": "nginx", "site": "a.test"}

    assert site_of(server).id == "a.test@*"
    assert site_of({**server, "listen": 443}).id == "a.test@443"
    with pytest.raises(InvalidRequest, match="names no site"):
        site_of({"kind": "nginx"})


def test_the_words_of_nginx_without_their_trimmings() -> None:
    """A person reads the cause, once, without log prefixes and control characters."""
    text = (
        'nginx: [warn] conflicting server name "a" on 0.0.0.0:80, ignored\n'
        'nginx: [emerg] cannot load certificate "/x\x1b[2J": no such file\n'
        '2026/01/02 03:04:05 [emerg] 12#12: cannot load certificate "/x\x1b[2J": no such file\n'
        "nginx: configuration file /etc/nginx/nginx.conf test failed\n"
    )

    assert words_of(text) == 'cannot load certificate "/x\\x1b[2J": no such file'
    assert words_of("something else\n") == "something else"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"kind": "nginx"}, "names no site"),
        ({"kind": "nginx", "site": "a.test", "sit": "b"}, "sit: unknown field"),
        ({"kind": "apach", "site": "a.test"}, "unknown kind of server 'apach'"),
    ],
)
def test_settings_are_checked_without_a_host(server: dict[str, object], words: str) -> None:
    """A configuration file is checked where none of its hosts can be reached."""
    check_settings({"kind": "nginx", "site": "a.test"})

    with pytest.raises(InvalidRequest, match=words):
        check_settings(server)


@pytest.mark.parametrize("kind", kinds())
def test_profiles_enable_tls_for_the_kinds_that_have_the_setting(kind: str) -> None:
    """A profile sets it for these kinds, and a kind without it would refuse it."""
    server = {"kind": kind, "site": "www.example.test", "enable_tls": True}
    if kind == "command":
        server["reload"] = ["true"]

    if kind in KINDS_THAT_ENABLE_TLS:
        check_settings(server)
    else:
        with pytest.raises(InvalidRequest, match="enable_tls: "):
            check_settings(server)
