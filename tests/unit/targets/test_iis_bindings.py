"""Bindings of IIS as they are read and chosen, and what is made of its errors."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.targets.iis.bindings import Binding, binding_of, find, must_be_ours_to_change
from blocks.targets.iis.failures import command_error, protocol_error
from certrail.errors import (
    ConnectorError,
    InvalidRequest,
    NotFound,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from tests.support.nginx import TestCa

GOOD = {
    "bindingInformation": "*:443:www.example.test",
    "sslFlags": 33,
    "certificateHash": "ab" * 20,
    "certificateStoreName": "WebHosting",
    "ItemXPath": "/system.applicationHost/sites/site[@name='Main' and @id='1']",
}


def test_a_binding_is_read() -> None:
    """Server Name Indication and another flag."""
    one = binding_of(GOOD)

    assert one.id == "Main/*:443:www.example.test"
    assert (one.address, one.port, one.host) == ("*", "443", "www.example.test")
    assert one.shared == ("host", "www.example.test", "443")
    assert one.thumbprint == "AB" * 20


def test_an_address_of_version_6_has_colons() -> None:
    """The last two divide."""
    one = binding_of({**GOOD, "bindingInformation": "[2001:db8::1]:443:", "sslFlags": 0})

    assert (one.address, one.port, one.host) == ("[2001:db8::1]", "443", "")
    assert one.shared == ("address", "[2001:db8::1]", "443")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bindingInformation", "443"),
        ("bindingInformation", None),
        ("sslFlags", "1"),
        ("certificateHash", "not hex"),
        ("certificateStoreName", "..\\CurrentUser"),
        ("ItemXPath", "/elsewhere"),
    ],
)
def test_what_is_no_binding(name: str, value: object) -> None:
    """Thumbprint and store become parts of a path."""
    with pytest.raises(UnexpectedReply):
        binding_of({**GOOD, name: value})


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(GOOD, st.text(max_size=40) | st.integers() | st.none())
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_is_a_binding_or_refused(row: dict[str, Any]) -> None:
    """No other error, and no path out of the machine's stores."""
    try:
        one = binding_of({**GOOD, **row})
    except UnexpectedReply:
        return
    assert "\\" not in one.store + one.thumbprint


def bound(site: str, information: str, flags: int = 0) -> Binding:
    """Return a binding of *site*."""
    return Binding(site, information, "", flags)


BOUND = [
    bound("Main", "*:443:www.example.test"),
    bound("Shop", "*:443:shop.example.test"),
    bound("Shop", "*:443:*.shop.example.test"),
    bound("Else", "*:8443:else.example.test"),
    bound("Named", "*:443:named.example.test", 1),
]


def test_a_site_is_found_by_either_name() -> None:
    """Windows does not tell upper from lower case."""
    assert find(BOUND, "main", "web1") == find(BOUND, "MAIN/*:443:WWW.example.test", "web1")
    with pytest.raises(NotFound):
        find(BOUND, "Main/*:8443:www.example.test", "web1")
    with pytest.raises(InvalidRequest, match="2 https bindings"):
        find(BOUND, "Shop", "web1")


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["www.example.test"], "shop.example.test"),
        (["*.example.test"], "shop.example.test"),
        (["*.example.test", "*.shop.example.test"], ""),
    ],
)
def test_who_shares_the_address_has_to_be_named(names: list[str], left_out: str) -> None:
    """Others are served the same certificate, those with SNI or another port are not."""
    leaf = TestCa().bundle(*names).chain.leaf
    if left_out:
        with pytest.raises(InvalidRequest, match=left_out):
            must_be_ours_to_change(BOUND[0], BOUND, leaf, "web1")
    else:
        must_be_ours_to_change(BOUND[0], BOUND, leaf, "web1")


def test_a_failure_without_a_word() -> None:
    """It is one all the same."""
    assert isinstance(command_error("web1: Get-Item", "web1", []), Rejected)


class _Wrapped(Exception):
    """As a library hides the cause among its arguments."""


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (TimeoutError(), Unreachable, "timeout"),
        (_Wrapped(ssl.SSLCertVerificationError("self-signed")), Unreachable, "untrusted"),
        (ConnectionResetError(), Unreachable, ""),
        (ValueError("<secret/>"), UnexpectedReply, ""),
    ],
)
def test_what_is_made_of_a_library_s_error(
    raised: Exception, kind: type[ConnectorError], code: str
) -> None:
    """Its own words may quote what was sent, and are left out."""
    found = protocol_error(raised, "web1: Get-Item", "web1")

    assert (type(found), found.code) == (kind, code)
    assert found.remedy
    assert "secret" not in str(found)
