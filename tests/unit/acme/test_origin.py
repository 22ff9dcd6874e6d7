"""Which URLs of a CA are followed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.acme.origin import Origin, Origins
from certrail.errors import InvalidRequest, UnexpectedReply

DIRECTORY = "https://ca.example.test/acme/directory"


@pytest.mark.parametrize(
    "url",
    [
        "https://ca.example.test/acme/order/1",
        "https://ca.example.test:443/acme/order/1",
        "https://CA.EXAMPLE.TEST/other?x=1",
        "https://other.test:8443/a",
    ],
)
def test_urls_of_the_directorys_and_of_allowed_origins_are_followed(url: str) -> None:
    """Case and the default port do not make another origin; what was allowed is allowed."""
    assert Origins(DIRECTORY, ["https://other.test:8443"]).check(url) == url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://ca.example.test/acme/order/1", id="downgraded to http"),
        pytest.param("https://ca.example.test:8443/", id="another port"),
        pytest.param("https://evil.test/", id="another host"),
        pytest.param("https://ca.example.test.evil.test/", id="longer host"),
        pytest.param("https://sub.ca.example.test/", id="subdomain"),
        pytest.param("https://ca.example.test@evil.test/", id="host as user name"),
        pytest.param("https://user@ca.example.test/", id="user name"),
        pytest.param("https://evil.test\\@ca.example.test/", id="backslash"),
        pytest.param("https://evil.test/\n.ca.example.test", id="line break"),
        pytest.param("https://ca.example.test/ a", id="space"),
        pytest.param("https://ca.example.test:99999/", id="impossible port"),
        pytest.param("https://[::1/", id="broken address"),
        pytest.param("https://сa.example.test/", id="look-alike letter"),
        pytest.param("//ca.example.test/order", id="no scheme"),
        pytest.param("/order/1", id="path only"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("", id="empty"),
        pytest.param(None, id="nothing"),
        pytest.param(7, id="a number"),
        pytest.param(["https://ca.example.test/"], id="a list"),
    ],
)
def test_any_other_url_is_refused(url: object) -> None:
    """A hostile directory must not make us sign requests to, or fetch from, other places."""
    with pytest.raises(UnexpectedReply):
        Origins(DIRECTORY).check(url)


def test_the_refusal_says_what_to_allow() -> None:
    """CAs with a second host are real; the message must say how to let them."""
    with pytest.raises(UnexpectedReply) as caught:
        Origins(DIRECTORY).check("https://issue.example.test:444/x")

    assert "https://issue.example.test:444" in caught.value.remedy
    assert "https://ca.example.test" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/d", "http://127.8.8.8/d", "http://[::1]:8/d", "http://localhost/d"]
)
def test_plain_http_is_accepted_on_this_machine(url: str) -> None:
    """A CA in a side process needs no TLS."""
    assert Origins(url).check(url) == url


@pytest.mark.parametrize(
    "url", ["http://ca.test/d", "http://10.0.0.1/d", "ftp://ca.test/", "ca", ""]
)
def test_a_directory_that_is_not_https_is_refused(url: str) -> None:
    """Over plain http anybody on the way issues certificates in our name."""
    with pytest.raises(InvalidRequest):
        Origins(url)


def test_an_allowed_origin_is_held_to_the_same_rule() -> None:
    """Allowing http for a second origin would undo the first."""
    with pytest.raises(InvalidRequest):
        Origins(DIRECTORY, ["http://other.test"])


@given(st.text(max_size=80))
def test_no_text_gets_past_as_another_origin(text: str) -> None:
    """Whatever follows the scheme, only our host is followed."""
    try:
        checked = Origins(DIRECTORY).check(f"https://{text}")
    except UnexpectedReply:
        return
    assert Origin.of(checked).host == "ca.example.test"
