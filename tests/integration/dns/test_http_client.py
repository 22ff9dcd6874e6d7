"""How every REST connector talks HTTP, over a real socket."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import trustme
from pydantic import BaseModel

from certrail.errors import (
    AuthenticationFailed,
    Busy,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.remote import http
from certrail.remote.http_errors import retry_after
from tests.support.process import free_port
from tests.support.scripted import Script, Scripted, http_reply, scripted

KEY = "s3cr3t-api-key-0123456789"
SECOND = timedelta(seconds=1)


def call(
    reply: Script,
    *,
    limit: int = http.DEFAULT_LIMIT,
    deadline: timedelta = http.DEFAULT_DEADLINE,
    stall: bool = False,
    drip: float | None = None,
    hide: tuple[str, ...] = (),
    body: object = None,
) -> httpx.Response:
    """Send one request with a credential to a server that answers *reply*."""
    with (
        scripted(reply, stall=stall, drip=drip) as server,
        http.client(
            f"http://127.0.0.1:{server.port}", headers={"X-API-Key": KEY}, timeout=SECOND
        ) as client,
    ):
        return http.send(
            client,
            "lab",
            "POST",
            "/orders?token=abcdefgh",
            limit=limit,
            deadline=deadline,
            hide=hide,
            json=body,
        )


def test_the_reply_arrives_whole() -> None:
    """The adapter adds errors and limits; a good reply passes through unchanged."""
    reply = call(http_reply(201, {"Location": "/orders/7", "X-Twice": "a"}, '{"id": 7}'))

    assert (
        reply.status_code,
        reply.headers["Location"],
        http.json_of(reply, dict),
    ) == (201, "/orders/7", {"id": 7})


def test_a_compressed_reply_is_unpacked_once() -> None:
    """The body is read by us, so the headers may no longer call it compressed."""
    packed = gzip.compress(b'{"id": 7}')

    reply = call(http_reply(200, {"Content-Encoding": "gzip"}, packed))

    assert http.json_of(reply, dict) == {"id": 7}
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        (400, Rejected, False),
        (401, AuthenticationFailed, False),
        (403, PermissionRefused, False),
        (404, NotFound, False),
        (408, Unreachable, True),
        (409, Conflict, False),
        (410, NotFound, False),
        (412, Conflict, False),
        (422, Rejected, False),
        (423, Busy, True),
        (429, Throttled, True),
        (500, Unreachable, True),
        (502, Unreachable, True),
        (503, Busy, True),
    ],
)
def test_a_status_becomes_the_error_that_says_what_to_do(
    status: int, error: type[ConnectorError], retryable: bool
) -> None:
    """Steps decide by the error's type whether to retry, and people by its words."""
    with pytest.raises(error) as caught:
        call(http_reply(status, body='{"message": "because of this"}'))

    assert retryable is caught.value.retryable
    assert (str(status), "lab") == (caught.value.code, caught.value.connector)
    assert f"lab: POST /orders answered {status}: because of this" == str(caught.value)


@pytest.mark.parametrize("status", [423, 429, 503])
def test_the_wait_the_server_asks_for_is_kept(status: int) -> None:
    """A client that comes back earlier is throttled again, or banned."""
    with pytest.raises((Busy, Throttled)) as caught:
        call(http_reply(status, {"Retry-After": "7"}))

    assert timedelta(seconds=7) == caught.value.retry_after


def test_an_accepted_status_is_the_callers_business() -> None:
    """Some APIs answer 404 for "none", which is an answer and not an error."""
    with (
        scripted(http_reply(404, body="{}")) as server,
        http.client(f"http://127.0.0.1:{server.port}") as client,
    ):
        reply = http.send(client, "lab", "GET", "/x", accept={404})

    assert reply.status_code == 404


def test_a_redirect_is_not_followed() -> None:
    """The credential would go to whatever host the reply names."""
    with scripted(http_reply(200)) as other:
        with pytest.raises(UnexpectedReply) as caught:
            call(http_reply(302, {"Location": f"http://127.0.0.1:{other.port}/in?key=1"}))

        assert other.requests == []
    assert "redirect to http://127.0.0.1" in str(caught.value)
    assert "key=1" not in str(caught.value)


def test_nobody_listening_is_unreachable() -> None:
    """A refused connection is worth a retry; the service may be restarting."""
    with (
        http.client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(Unreachable) as caught,
    ):
        http.send(client, "lab", "GET", "/x")

    assert "refused" in str(caught.value)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", http_reply(200)[:-2]])
def test_a_stalled_server_is_unreachable(said: bytes) -> None:
    """A step must not hang for ever on a server that accepts and says nothing."""
    with pytest.raises(Unreachable) as caught:
        call(said, stall=True)

    assert caught.value.code == "timeout"


def test_a_dripping_reply_ends_at_the_deadline() -> None:
    """One byte just inside every read timeout would hold a worker for hours."""
    head = http_reply(200, {"Content-Length": "5000"})
    with pytest.raises(Unreachable) as caught:
        call(head + b" " * 5000, drip=0.002, deadline=timedelta(seconds=0.5))

    assert "did not end in time" in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        http_reply(200, {"Content-Length": "100"}, "short"),
        http_reply(200, {"Transfer-Encoding": "chunked", "Content-Length": "0"}, "5\r\nab"),
    ],
)
def test_a_cut_reply_is_unreachable(said: bytes) -> None:
    """Half a reply is no reply: the request may or may not have been carried out."""
    with pytest.raises(Unreachable):
        call(said)


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/9.9 what\r\n\r\n"],
)
def test_something_that_is_not_http_is_called_that(said: bytes) -> None:
    """A wrong port is a configuration error; retrying does not mend it."""
    with pytest.raises(UnexpectedReply) as caught:
        call(said)

    assert not caught.value.retryable


def test_a_reply_beyond_the_limit_is_refused() -> None:
    """A hostile or broken server must not fill the worker's memory."""
    with pytest.raises(UnexpectedReply) as caught:
        call(http_reply(200, body=b"x" * 3000), limit=2000)

    assert "longer than 2000 bytes" in str(caught.value)


def test_the_limit_counts_unpacked_bytes() -> None:
    """A megabyte of zeros travels as a kilobyte."""
    with pytest.raises(UnexpectedReply):
        call(
            http_reply(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(2_000_000))),
            limit=1_000_000,
        )


def test_a_reply_that_cannot_be_unpacked_is_nonsense() -> None:
    """A truncated or mislabelled compression is outside the protocol."""
    with pytest.raises(UnexpectedReply):
        call(http_reply(200, {"Content-Encoding": "gzip"}, b"not gzip at all"))


@pytest.mark.parametrize(
    "echo",
    [
        f'{{"message": "bad key {KEY}"}}',
        f'{{"errors": [{{"detail": "no {KEY}"}}]}}',
        f"plain text {KEY}",
        f'{{"unforeseen": "{KEY}"}}',
    ],
)
def test_a_credential_echoed_by_the_server_stays_hidden(echo: str) -> None:
    """Messages go into the database, logs, mails and onto screens."""
    with pytest.raises(Rejected) as caught:
        call(http_reply(400, body=echo))

    error = caught.value
    seen = [str(error), repr(error), error.remedy, *traceback.format_exception(error)]
    assert not any(KEY in text for text in seen)
    assert "<hidden>" in str(error)


def test_a_bearer_token_is_hidden_without_its_scheme() -> None:
    """Services quote the token, not the header."""
    with (
        scripted(http_reply(403, body=f"token {KEY} may not")) as server,
        http.client(
            f"http://127.0.0.1:{server.port}", headers={"Authorization": f"Bearer {KEY}"}
        ) as client,
        pytest.raises(PermissionRefused) as caught,
    ):
        http.send(client, "lab", "GET", "/x")

    assert str(caught.value) == "lab: GET /x answered 403: token <hidden> may not"


def test_a_password_is_hidden_however_it_comes_back() -> None:
    """Basic authentication sends it encoded; a service may quote either form."""

    def echo(request: bytes) -> bytes:
        header = next(line for line in request.decode().split("\r\n") if "Basic" in line)
        return http_reply(400, body=f"no: {header} = {KEY}")

    with (
        scripted(echo) as server,
        http.client(f"http://127.0.0.1:{server.port}", auth=("user", KEY)) as client,
        pytest.raises(Rejected) as caught,
    ):
        http.send(client, "lab", "GET", "/x")

    encoded = server.requests[0].decode().partition("Basic ")[2].split()[0]
    assert KEY not in str(caught.value)
    assert encoded not in str(caught.value)


def test_a_secret_of_the_body_is_hidden_when_named() -> None:
    """Some logins post the secret and some servers quote what was posted."""
    with pytest.raises(Rejected) as caught:
        call(
            lambda got: http_reply(400, body=got.rpartition(b"\r\n")[2]),
            hide=("h4s7a",),
            body="h4s7a",
        )

    assert "h4s7a" not in str(caught.value)


def test_a_remote_text_cannot_drive_the_terminal() -> None:
    """An escape sequence or a line break in a reply must not forge output."""
    with pytest.raises(Rejected) as caught:
        call(http_reply(400, body=json.dumps({"error": "a\x1b[2Jb\nc\u009bd" + "e" * 5000})))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "body",
    ["<html><body>Bad gateway</body></html>", "[[[[[[[", "\xff\xfe", "null", "{}", "[" * 60000],
)
def test_a_useless_error_body_is_survived(body: str) -> None:
    """The status is the message then; the body must not raise something else."""
    with pytest.raises(Unreachable):
        call(http_reply(502, body=body.encode("latin-1")))


def test_urls_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Some appliances want their key in the query, and the HTTP library logs URLs."""
    with caplog.at_level(logging.INFO):
        call(http_reply(200, body="{}"))

    assert "abcdefgh" not in caplog.text


class Item(BaseModel):
    name: str
    size: int


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('{"name": "a"', "json_invalid"),
        ("", "json_invalid"),
        ('{"name": "a", "size": "big-SECRET"}', "size"),
        ('{"name": "a"}', "size"),
        ("[]", "the whole"),
        ("null", "the whole"),
    ],
)
def test_json_of_another_shape_is_called_that(body: str, where: str) -> None:
    """A proxy's or another version's reply must not turn into a KeyError later."""
    reply = call(http_reply(200, body=body))

    with pytest.raises(UnexpectedReply) as caught:
        http.json_of(reply, Item)

    text = "".join(traceback.format_exception(caught.value))
    assert where in str(caught.value)
    assert str(caught.value).startswith("lab: ")
    assert "SECRET" not in text


def test_json_becomes_a_typed_value() -> None:
    """What left this function is known to be good."""
    reply = call(http_reply(200, body='[{"name": "a", "size": 1, "new-field": true}]'))

    assert [Item(name="a", size=1)] == http.json_of(reply, list[Item])


def test_a_header_that_cannot_be_sent_is_not_quoted() -> None:
    """A key pasted with a line break would otherwise land in the traceback."""
    with pytest.raises(InvalidRequest) as caught:
        http.client("http://127.0.0.1:1", headers={"X-API-Key": KEY + "\n"})

    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert "X-API-Key" in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://host/", "host:8081", "http://", "http://h:99999999/"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """Nothing is changed and the message says which setting is wrong."""
    with pytest.raises(InvalidRequest):
        http.client(url)


@pytest.mark.parametrize("content", [None, "", "no certificate here"])
def test_an_unusable_ca_bundle_is_refused_at_once(tmp_path: Path, content: str | None) -> None:
    """Falling back to the system's trust would hide the mistake."""
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(InvalidRequest) as caught:
        http.client("https://127.0.0.1", ca_bundle=str(path))

    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@contextmanager
def tls_server(ca: trustme.CA, name: str = "localhost") -> Iterator[Scripted]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    with scripted(http_reply(200, body="{}"), tls=context) as server:
        yield server


def test_a_private_ca_is_trusted_when_it_is_given(ca: trustme.CA, tmp_path: Path) -> None:
    """Appliances have certificates of the company's own CA; as path or as text."""
    path = tmp_path / "roots.pem"
    ca.cert_pem.write_to_path(path)
    for bundle in (str(path), ca.cert_pem.bytes().decode()):
        with (
            tls_server(ca) as server,
            http.client(f"https://localhost:{server.port}", ca_bundle=bundle) as client,
        ):
            assert http.send(client, "lab", "GET", "/").status_code == 200


def test_a_changed_ca_bundle_is_read_again(ca: trustme.CA, tmp_path: Path) -> None:
    """Contexts are kept; a bundle corrected on disk must count without a restart."""
    path = tmp_path / "roots.pem"
    trustme.CA().cert_pem.write_to_path(path)
    with tls_server(ca) as server:
        url = f"https://localhost:{server.port}"
        with http.client(url, ca_bundle=str(path)) as client, pytest.raises(Unreachable):
            http.send(client, "lab", "GET", "/")
        ca.cert_pem.write_to_path(path)

        with http.client(url, ca_bundle=str(path)) as client:
            assert http.send(client, "lab", "GET", "/").status_code == 200


@pytest.mark.parametrize(("bundle", "name"), [(False, "localhost"), (True, "other.test")])
def test_an_untrusted_server_gets_nothing(ca: trustme.CA, bundle: bool, name: str) -> None:
    """Neither an unknown CA nor a wrong name may receive the credential."""
    pem = ca.cert_pem.bytes().decode() if bundle else ""
    with (
        tls_server(ca, name) as server,
        http.client(f"https://localhost:{server.port}", ca_bundle=pem) as client,
    ):
        with pytest.raises(Unreachable) as caught:
            http.send(client, "lab", "GET", "/")

        assert server.requests == []
    assert caught.value.code == "untrusted"
    assert "ca_bundle" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("0", 0),
        ("-5", 30),
        ("", 30),
        ("soon", 30),
        ("1.5", 30),
        ("²", 30),
        ("999999999999999999999", 86400),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86400),
        ("Mon, 00 Foo 2020 99:99:99 GMT", 30),
    ],
)
def test_every_form_of_retry_after_is_read(text: str, expected: int) -> None:
    """Seconds and dates are both allowed; nonsense must neither raise nor wait for ever."""
    reply = httpx.Response(429, headers=[(b"Retry-After", text.encode())])

    assert timedelta(seconds=expected) == retry_after(reply, timedelta(seconds=30))


def test_a_retry_after_date_counts_by_the_clock_of_the_server() -> None:
    """Ours may be wrong by hours."""
    then = datetime.now(UTC) - timedelta(hours=2)
    headers = {
        "Date": format_datetime(then),
        "Retry-After": format_datetime(then + timedelta(minutes=10)),
    }

    assert retry_after(httpx.Response(429, headers=headers)) == timedelta(minutes=10)


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_a_retry_after_date_is_a_wait_from_now(zone: str) -> None:
    """Pebble and Boulder send dates as well as seconds."""
    when = format_datetime(datetime.now(UTC) + timedelta(minutes=10)).replace("+0000", zone)

    wait = retry_after(httpx.Response(429, headers={"Retry-After": when}))

    assert timedelta(minutes=9) < wait <= timedelta(minutes=10)


def test_errors_survive_pickling() -> None:
    """They travel through Prefect's result machinery on their way to the screen."""
    with pytest.raises(Throttled) as caught:
        call(http_reply(429, {"Retry-After": "3"}, "slow down"))

    again = pickle.loads(pickle.dumps(caught.value))

    assert (str(caught.value), timedelta(seconds=3)) == (str(again), again.retry_after)


class _Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: set[tuple[str, int]]

    def do_GET(self) -> None:
        self.connections.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_one_connection_serves_many_requests() -> None:
    """Bodies are read to the end, so that connections are used again in a bulk job."""

    class Handler(_Counting):
        connections: set[tuple[str, int]] = set()  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with http.client(f"http://127.0.0.1:{server.server_port}") as client:
                for _ in range(5):
                    http.send(client, "lab", "GET", "/")
        finally:
            server.shutdown()
            thread.join()

    assert len(Handler.connections) == 1


def test_a_header_with_other_letters_is_read_past() -> None:
    """Proxies put a company's name into headers; none of that is ours to judge."""
    said = b"HTTP/1.1 200 OK\r\nX-Proxy: Z\xc3\xbcrich\r\nContent-Length: 2\r\n\r\n{}"

    reply = call(said)

    assert http.json_of(reply, dict) == {}
