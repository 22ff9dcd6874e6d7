"""http-01: files below a web root, and our own listener, asked over real HTTP."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certrail.errors import Busy, InvalidRequest, NotFound, PermissionRefused, UnexpectedReply
from certrail.model import Challenge, ChallengeKind
from certrail.remote.http01 import WELL_KNOWN, ListeningResponder, WebrootResponder
from certrail.remote.local import LocalHost
from certrail.remote.token_server import published_tokens
from tests.support.process import accepts, binary, free_port, let_in, running


def challenge(token: str, proof: str = "") -> Challenge:
    return Challenge(
        ChallengeKind.HTTP_01,
        url=f"https://ca.test/{token}",
        authorization="https://ca.test/a",
        name="www.example.test",
        token=token,
        key_authorization=proof or f"{token}.thumbprint",
    )


def get(port: int, path: str, *, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@pytest.fixture
def webroot(tmp_path: Path) -> Path:
    path = tmp_path / "www"
    path.mkdir()
    return path


def test_files_are_served_by_a_real_web_server_and_removed(tmp_path: Path, webroot: Path) -> None:
    """nginx, as an account of its own, must be able to read what we write."""
    port = free_port()
    tmp_path.chmod(0o755)
    let_in(tmp_path)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"user www-data; daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{}} http {{ access_log off; server {{ listen 127.0.0.1:{port};"
        f" root {webroot}; }} }}\n"
    )
    responder = WebrootResponder(LocalHost("here"), str(webroot))
    wanted = [challenge("token-one_1"), challenge("token-two")]
    argv = [binary("nginx", "nginx"), "-c", str(config), "-e", str(tmp_path / "error.log")]

    with running(argv, log=tmp_path / "nginx.log", port=port):
        responder.publish(wanted)
        responder.publish(wanted)

        for item in wanted:
            assert get(port, WELL_KNOWN + item.token) == (200, item.key_authorization.encode())
        responder.withdraw(wanted[:1])
        assert get(port, WELL_KNOWN + wanted[0].token)[0] == 404
        assert get(port, WELL_KNOWN + wanted[1].token)[0] == 200
        # A later process knows nothing of what this one made.
        WebrootResponder(LocalHost("here"), str(webroot)).withdraw(wanted)

    assert list(webroot.iterdir()) == []


def test_directories_that_were_there_stay(webroot: Path) -> None:
    """Other programs use /.well-known too."""
    (webroot / ".well-known").mkdir()
    responder = WebrootResponder(LocalHost("here"), str(webroot))

    responder.publish([challenge("token")])
    responder.withdraw([challenge("token")])
    responder.withdraw([challenge("token")])

    assert [path.name for path in webroot.rglob("*")] == [".well-known"]


def test_requests_for_one_web_root_do_not_disturb_each_other(webroot: Path) -> None:
    """One removes the directory after its last proof while the next one writes."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        responder = WebrootResponder(LocalHost("here"), str(webroot))
        try:
            for turn in range(20):
                item = challenge(f"t{number}-{turn}")
                responder.publish([item])
                path = webroot / ".well-known/acme-challenge" / item.token
                assert path.read_text() == item.key_authorization
                responder.withdraw([item])
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert not list(webroot.rglob("t*"))


@pytest.mark.parametrize(
    "token", ["", "../../x", "a/b", ".", "..", "a b", "a\n", "ä", "a\0", "x" * 256, "~", "a=="]
)
def test_a_token_that_is_a_path_is_refused(webroot: Path, token: str) -> None:
    """The token comes from outside and becomes a file name."""
    responder = WebrootResponder(LocalHost("here"), str(webroot))

    with pytest.raises(UnexpectedReply):
        responder.publish([challenge("good"), challenge(token)])
    with pytest.raises(UnexpectedReply):
        ListeningResponder("127.0.0.1", free_port()).publish([challenge(token)])

    assert list(webroot.iterdir()) == []


def test_a_missing_web_root_is_not_made(tmp_path: Path) -> None:
    """A misspelt path would be served by nobody."""
    responder = WebrootResponder(LocalHost("here"), f"{tmp_path}/absent")

    with pytest.raises(NotFound, match="web root"):
        responder.publish([challenge("token")])
    with pytest.raises(InvalidRequest):
        WebrootResponder(LocalHost("here"), "www")


@contextmanager
def published(port: int, *tokens: str, address: str = "127.0.0.1") -> Iterator[ListeningResponder]:
    responder = ListeningResponder(address, port)
    wanted = [challenge(token) for token in tokens]
    responder.publish(wanted)
    try:
        yield responder
    finally:
        responder.withdraw(wanted)


def test_the_listener_answers_published_tokens_only() -> None:
    """It is on the open internet for as long as it runs."""
    port = free_port()
    with published(port, "token"):
        assert get(port, WELL_KNOWN + "token") == (200, b"token.thumbprint")
        assert get(port, WELL_KNOWN + "token?x=1") == (200, b"token.thumbprint")
        assert get(port, WELL_KNOWN + "token", method="HEAD") == (200, b"")
        assert get(port, WELL_KNOWN + "token", method="POST")[0] == 405
        for path in (WELL_KNOWN, WELL_KNOWN + "other", "/token", "/", "//[", WELL_KNOWN + "../"):
            assert get(port, path)[0] in (400, 404)

    assert not accepts(port)


def test_responders_share_a_port_until_the_last_one_is_done() -> None:
    """Requests that run at once have one port 80 between them."""
    port = free_port()
    with published(port, "a"):
        with published(port, "b", "a"):
            assert get(port, WELL_KNOWN + "b")[0] == 200
        assert get(port, WELL_KNOWN + "b")[0] == 404
        assert get(port, WELL_KNOWN + "a")[0] == 200
    assert not accepts(port)

    with published(port, "c"):
        assert get(port, WELL_KNOWN + "c")[0] == 200


def test_withdrawing_what_is_not_published_is_quiet() -> None:
    """A retry after a crash withdraws first."""
    ListeningResponder("127.0.0.1", free_port()).withdraw([challenge("token")])


def test_many_requests_at_once_while_slow_clients_hang_on() -> None:
    """CAs ask from several places at once, and scanners come along too."""
    port = free_port()
    answers: list[tuple[int, bytes]] = []
    with published(port, "token"):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for client in slow:
            client.sendall(b"GET /")
        threads = [
            threading.Thread(target=lambda: answers.append(get(port, WELL_KNOWN + "token")))
            for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in slow:
            client.close()

    assert answers == [(200, b"token.thumbprint")] * 40


def test_a_slow_client_is_let_go() -> None:
    """A byte now and then must not keep a place for good."""
    port = free_port()
    with published(port, "token"), socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(20)
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert client.recv(100) == b""


def test_rubbish_is_answered_or_dropped() -> None:
    """Nothing a client sends stops the listener."""
    port = free_port()
    with published(port, "token"):
        for sent in (b"\r\n\r\n", b"\x16\x03\x01\n\n", b"GET\r\n\r\n", b"A" * 20_000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(20)
                try:
                    client.sendall(sent)
                    client.recv(1000)
                except ConnectionError:
                    continue
        assert get(port, WELL_KNOWN + "token")[0] == 200


def test_every_address_takes_ipv4_and_ipv6() -> None:
    """The CA asks over either, and prefers IPv6."""
    port = free_port()
    with published(port, "token", address="::"):
        assert get(port, WELL_KNOWN + "token", host="127.0.0.1")[0] == 200
        assert get(port, WELL_KNOWN + "token", host="::1")[0] == 200


def test_a_port_in_use_is_busy() -> None:
    """The web server there is the one to publish through."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Busy) as caught:
            ListeningResponder("127.0.0.1", port).publish([challenge("token")])

    assert str(port) in str(caught.value)
    assert "root" in caught.value.remedy
    with published(port, "token"):
        assert accepts(port)


def test_an_address_of_another_machine_is_refused() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    with pytest.raises(InvalidRequest):
        ListeningResponder("192.0.2.1", free_port()).publish([challenge("token")])
    with pytest.raises(InvalidRequest):
        ListeningResponder("127.0.0.1", 0)


def test_a_privileged_port_is_a_matter_of_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy names the capability."""
    from certrail.remote.token_server import _refusal

    error = _refusal(PermissionError(13, "Permission denied"), "", 80)

    assert isinstance(error, PermissionRefused)
    assert "CAP_NET_BIND_SERVICE" in error.remedy


def test_no_listener_is_left() -> None:
    """Every test above withdrew what it published."""
    assert published_tokens._servers == {}
