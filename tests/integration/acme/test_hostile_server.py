"""Answers that no proper CA gives on demand, over a real socket."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from certrail.acme.ca import AcmeCa
from certrail.acme.connection import NONCE_ATTEMPTS
from certrail.errors import (
    CertrailError,
    Conflict,
    InvalidRequest,
    NotFound,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.keys.generate import generate
from certrail.model import (
    AuthorizationStatus,
    Chain,
    ChallengeKind,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderStatus,
    RevocationReason,
    SubjectSpec,
)
from certrail.wait import Pending
from certrail.x509.csr import build_csr
from tests.integration.acme.conftest import Connect
from tests.support.acme_client import spec
from tests.support.pebble import Pebble
from tests.support.process import free_port
from tests.support.scripted_acme import PROBLEM, Answer, Request, ScriptedAcme, scripted_acme


@pytest.fixture
def ca(scripted: ScriptedAcme, connect: Connect) -> AcmeCa:
    """A connector for the scripted server."""
    return connect(url=f"{scripted.url}/dir")


@pytest.fixture
def elsewhere() -> Iterator[ScriptedAcme]:
    """A server at another origin, which must never be asked anything."""
    with scripted_acme() as server:
        yield server
        assert server.requests == []


@pytest.fixture
def chain() -> Chain:
    """A certificate whose chain has an authority key identifier."""
    own = trustme.CA().issue_cert("a.test")
    return Chain.from_pem(own.cert_chain_pems[0].bytes().decode())


def order_of(server: ScriptedAcme, **data: Any) -> Order:
    """Return the stored order that :meth:`ScriptedAcme.order` describes."""
    known = {
        "names": ["a.test"],
        "authorizations": [f"{server.url}/authz/1"],
        "finalize": f"{server.url}/order/1/finalize",
    }
    return Order(
        OrderKey("k"), f"{server.url}/order/1", OrderStatus.PENDING, data={**known, **data}
    )


# --- where the CA may send us ------------------------------------------------------------------


CALLS: dict[str, Callable[[AcmeCa, Chain], object]] = {
    "newNonce": lambda ca, chain: ca.check(),
    "newAccount": lambda ca, chain: ca.ensure_account(),
    "newOrder": lambda ca, chain: ca.open_order(spec("a.test")),
    "revokeCert": lambda ca, chain: ca.revoke(chain, RevocationReason.SUPERSEDED),
    "renewalInfo": lambda ca, chain: ca.renewal_info(chain),
}


@pytest.mark.parametrize("field", CALLS)
def test_a_directory_cannot_send_us_elsewhere(
    scripted: ScriptedAcme, elsewhere: ScriptedAcme, connect: Connect, chain: Chain, field: str
) -> None:
    """Signed requests to, or fetches from, any address we can reach would be the CA's to choose."""
    scripted.on("/dir", Answer(scripted.directory(**{field: f"{elsewhere.url}/x"})))
    ca = connect(url=f"{scripted.url}/dir")

    with pytest.raises(UnexpectedReply, match="leads elsewhere") as caught:
        CALLS[field](ca, chain)

    assert elsewhere.url in caught.value.remedy


@pytest.fixture(autouse=True)
def quiet_orders(scripted: ScriptedAcme) -> None:
    """Let what these tests do not look at succeed."""
    scripted.on("/order", scripted.new_order())
    scripted.on("/revoke", Answer())


def test_an_order_cannot_lead_elsewhere(
    scripted: ScriptedAcme, elsewhere: ScriptedAcme, ca: AcmeCa
) -> None:
    """Location, authorizations, finalize, certificate and challenges are held to the origin."""
    away = f"{elsewhere.url}/x"
    csr = build_csr(SubjectSpec(("a.test",)), generate(KeyAlgorithm.ECDSA_P256))

    scripted.on("/order", Answer(scripted.order(), 201, {"Location": away}))
    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.open_order(spec("a.test"))
    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.authorizations(order_of(scripted, authorizations=[away]))
    scripted.on("/order/1", Answer(scripted.order(status="ready")))
    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.finalize(order_of(scripted, finalize=away), csr)
    scripted.on("/order/1", Answer(scripted.order(status="valid", certificate=away)))
    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.collect(order_of(scripted))
    challenges = [scripted.challenge(url=away)]
    scripted.on("/authz/1", Answer(scripted.authorization(challenges=challenges)))
    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.authorizations(order_of(scripted))


def test_an_alternate_chain_elsewhere_is_not_fetched(
    scripted: ScriptedAcme, elsewhere: ScriptedAcme, connect: Connect, chain: Chain
) -> None:
    """Link headers carry URLs of the server's choice as well."""
    scripted.on("/order/1", Answer(scripted.order(status="valid", certificate=f"{scripted.url}/c")))
    links = {"Link": f'<{elsewhere.url}/other>;rel="alternate"'}
    scripted.on("/c", Answer(chain.text, headers=links))
    ca = connect(url=f"{scripted.url}/dir", preferred_chain="Other Root")

    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.collect(order_of(scripted))


def test_a_redirect_elsewhere_is_not_followed(
    scripted: ScriptedAcme, elsewhere: ScriptedAcme, ca: AcmeCa
) -> None:
    """Neither by the directory nor by anything else."""
    scripted.on("/dir", Answer(status=302, headers={"Location": f"{elsewhere.url}/dir"}))

    with pytest.raises(UnexpectedReply, match="leads elsewhere"):
        ca.check()


def test_a_redirect_on_the_same_origin_is_followed(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """CAs move their directory now and then."""
    scripted.on("/dir", Answer(status=301, headers={"Location": "/moved"}))
    scripted.on("/moved", Answer(scripted.directory()))

    assert "answers" in ca.check()


def test_redirects_in_a_circle_end(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """A loop must not hold a worker."""
    scripted.on("/dir", Answer(status=302, headers={"Location": "/dir"}))

    with pytest.raises(UnexpectedReply, match="redirects"):
        ca.check()


def test_a_signed_request_is_never_redirected(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """The signature is for one URL (RFC 8555 section 6.4)."""
    scripted.on("/order", Answer(status=307, headers={"Location": f"{scripted.url}/order2"}))

    with pytest.raises(UnexpectedReply, match="cannot be redirected"):
        ca.open_order(spec("a.test"))
    assert scripted.asked("/order2") == []


def test_an_allowed_origin_is_followed(scripted: ScriptedAcme, connect: Connect) -> None:
    """Some CAs keep orders on a second host."""
    with scripted_acme() as second:
        second.on("/order", second.new_order())
        scripted.on("/dir", Answer(scripted.directory(newOrder=f"{second.url}/order")))
        ca = connect(url=f"{scripted.url}/dir", allowed_origins=[second.url])

        assert ca.open_order(spec("a.test")).remote_id == f"{second.url}/order/1"


@pytest.mark.parametrize("token", ["../../etc/cron.d/x", "a/b", "a b", "", "ü", None, 7, "a" * 300])
def test_a_token_that_is_no_token_is_refused(
    scripted: ScriptedAcme, ca: AcmeCa, token: object
) -> None:
    """It becomes a file name in a web root."""
    challenge = scripted.challenge(type="http-01", token=token)
    scripted.on("/authz/1", Answer(scripted.authorization(challenges=[challenge])))

    with pytest.raises(UnexpectedReply, match="token"):
        ca.authorizations(order_of(scripted))


# --- replies that are not what they should be --------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(Answer("<html>Welcome</html>"), UnexpectedReply, id="a web page"),
        pytest.param(Answer("<html>no</html>", 400), UnexpectedReply, id="a web page, 400"),
        pytest.param(Answer("<html>bad gateway</html>", 502), Unreachable, id="a gateway's page"),
        pytest.param(Answer("<html>wait</html>", 429), Throttled, id="a gateway's limit"),
        pytest.param(Answer("<html>?</html>", 404), NotFound, id="nothing there"),
        pytest.param(Answer('{"newNonce": "http'), UnexpectedReply, id="half of the JSON"),
        pytest.param(Answer("[]"), UnexpectedReply, id="JSON, but a list"),
        pytest.param(Answer("{}"), UnexpectedReply, id="an empty object"),
        pytest.param(Answer(""), UnexpectedReply, id="nothing"),
        pytest.param(Answer(b"\xff\xfe\x00"), UnexpectedReply, id="octets"),
        pytest.param(Answer("[" * 100_000), UnexpectedReply, id="nested without end"),
        pytest.param(
            Answer({"newNonce": 1, "newAccount": 2, "newOrder": 3}), UnexpectedReply, id="numbers"
        ),
        pytest.param(Answer("{", cut=50), Unreachable, id="the connection ends early"),
        pytest.param(Answer(b"x" * (2 * 1024 * 1024)), UnexpectedReply, id="two megabytes"),
    ],
)
def test_a_directory_that_is_none(
    scripted: ScriptedAcme, ca: AcmeCa, answer: Answer, kind: type[CertrailError]
) -> None:
    """Proxies, login pages and wrong addresses answer too; none may end in a traceback."""
    scripted.on("/dir", answer)

    with pytest.raises(kind) as caught:
        ca.check()

    assert type(caught.value) is kind
    assert caught.value.remedy


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "odd"},
        {"status": "pending"},
        {"status": "pending", "authorizations": "x", "finalize": "y"},
        {"status": "pending", "authorizations": [1], "finalize": "y"},
        {"status": ["pending"], "authorizations": [], "finalize": "y"},
        "<html>",
    ],
)
def test_an_order_that_is_none(scripted: ScriptedAcme, ca: AcmeCa, body: Any) -> None:
    """What comes after relies on its parts."""
    scripted.on("/order", Answer(body, 201, {"Location": f"{scripted.url}/order/1"}))

    with pytest.raises(UnexpectedReply):
        ca.open_order(spec("a.test"))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "odd"},
        {"identifier": None},
        {"identifier": {"type": "dns"}},
        {"challenges": [{"type": "dns-01"}]},
        {"challenges": [{"type": "dns-01", "token": "t", "url": None}]},
    ],
)
def test_an_authorization_that_is_none(
    scripted: ScriptedAcme, ca: AcmeCa, changes: dict[str, Any]
) -> None:
    """Nothing may be published on the word of a broken object."""
    scripted.on("/authz/1", Answer(scripted.authorization(**changes)))

    with pytest.raises(UnexpectedReply):
        ca.authorizations(order_of(scripted))


@pytest.mark.parametrize(
    "body", ["", "<html>", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_certificate_that_is_none(scripted: ScriptedAcme, ca: AcmeCa, body: str) -> None:
    """It would be installed otherwise."""
    scripted.on("/order/1", Answer(scripted.order(status="valid", certificate=f"{scripted.url}/c")))
    scripted.on("/c", Answer(body))

    with pytest.raises(UnexpectedReply):
        ca.collect(order_of(scripted))


def test_challenges_of_other_kinds_are_left_out(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """CAs add kinds; an unknown one is no reason to fail (RFC 8555 section 8)."""
    challenges = [{"type": "tls-alpn-01"}, {"type": 5}, {}, "x", scripted.challenge()]
    scripted.on("/authz/1", Answer(scripted.authorization(challenges=challenges)))

    (authorization,) = ca.authorizations(order_of(scripted))

    assert [each.kind for each in authorization.challenges] == [ChallengeKind.DNS_01]


# --- nonces ------------------------------------------------------------------------------------


def test_refused_nonces_end(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """A CA that refuses every nonce must not hold a worker for ever."""
    scripted.on("/order", Answer.problem("badNonce"))

    with pytest.raises(Unreachable, match="nonce"):
        ca.open_order(spec("a.test"))

    nonces = [request.header["nonce"] for request in scripted.asked("/order")]
    assert len(nonces) == len(set(nonces)) == NONCE_ATTEMPTS


def test_a_refusal_without_a_nonce_fetches_one(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Section 6.5 promises one in the error; not every proxy lets it through."""
    refusal = Answer.problem("badNonce")
    scripted.on("/order", [Answer(refusal.body, 400, nonce=False), scripted.new_order()])

    assert ca.open_order(spec("a.test")).status is OrderStatus.PENDING
    nonces = [request.header["nonce"] for request in scripted.asked("/order")]
    assert len(set(nonces)) == 2


@pytest.mark.parametrize("headers", [{}, {"Replay-Nonce": "not base64url!"}, {"Replay-Nonce": ""}])
def test_a_ca_without_nonces_is_told_so(
    scripted: ScriptedAcme, ca: AcmeCa, headers: dict[str, str]
) -> None:
    """A proxy that drops the header is a common mistake in front of private CAs."""
    scripted.on("/nonce", Answer(headers=headers, nonce=False))

    with pytest.raises(UnexpectedReply, match="Replay-Nonce") as caught:
        ca.check()
    assert "proxy" in caught.value.remedy


# --- limits and failures ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_rate_limit_carries_its_pause(scripted: ScriptedAcme, ca: AcmeCa, form: str) -> None:
    """The retry is scheduled by it; both forms of the header count."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    pause = "120" if form == "seconds" else date
    scripted.on("/order", Answer.problem("rateLimited", 429, headers={"Retry-After": pause}))

    with pytest.raises(Throttled) as caught:
        ca.open_order(spec("a.test"))

    assert caught.value.retry_after is not None
    assert 115 <= caught.value.retry_after.total_seconds() <= 125
    assert caught.value.code == PROBLEM + "rateLimited"


def test_a_failure_on_newOrder_can_be_retried(scripted: ScriptedAcme, ca: AcmeCa) -> None:  # noqa: N802
    """Caddy answers so when its store conflicts; the second attempt succeeds."""
    scripted.on("/order", [Answer.problem("serverInternal", 500), scripted.new_order()])

    with pytest.raises(Unreachable) as caught:
        ca.open_order(spec("a.test"))

    assert caught.value.retryable
    assert ca.open_order(spec("a.test")).status is OrderStatus.PENDING


def test_nobody_listening(connect: Connect) -> None:
    """The address is in the message; a retry can help."""
    url = f"http://127.0.0.1:{free_port()}/dir"

    with pytest.raises(Unreachable, match=url):
        connect(url=url).check()


def test_an_untrusted_directory_names_ca_bundle(shared_pebble: Pebble, connect: Connect) -> None:
    """The commonest mistake with private CAs, and its cure."""
    with pytest.raises(Unreachable, match="not trusted") as caught:
        connect(url=shared_pebble.directory_url).check()

    assert "ca_bundle" in caught.value.remedy


@pytest.mark.parametrize(
    ("host", "expired", "cause", "cure"),
    [
        ("other.test", False, "another name", "Use the name"),
        ("127.0.0.1", True, "has expired", "Renew"),
    ],
)
def test_trust_is_not_blamed_for_other_faults_of_the_certificate(
    tmp_path: Path, connect: Connect, host: str, expired: bool, cause: str, cure: str
) -> None:
    """Changing ca_bundle cures neither, and turning verification off is not offered."""
    authority = trustme.CA()
    bundle = tmp_path / "trust.pem"
    authority.cert_pem.write_to_path(str(bundle))
    end = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
    certificate = authority.issue_cert(host, not_before=end - timedelta(days=9), not_after=end)

    with scripted_acme(certificate) as server, pytest.raises(Unreachable, match=cause) as caught:
        connect(url=f"{server.url}/dir", ca_bundle=str(bundle)).check()

    assert "ca_bundle" not in caught.value.remedy
    assert cure in caught.value.remedy


def test_a_reply_that_never_ends_is_cut(
    scripted: ScriptedAcme, ca: AcmeCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte now and then keeps every single read alive; the whole reply has a deadline."""
    monkeypatch.setattr("certrail.acme.connection._DEADLINE", timedelta(milliseconds=100))
    scripted.on("/dir", Answer(json.dumps(scripted.directory()), drip=0.02))

    with pytest.raises(Unreachable, match="still sending"):
        ca.check()


def test_a_compressed_reply_is_not_inflated(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """A kilobyte can become a gigabyte; nothing compressed was asked for."""
    bomb = gzip.compress(b" " * (16 * 1024 * 1024))
    scripted.on("/dir", Answer(bomb, headers={"Content-Encoding": "gzip"}))

    with pytest.raises(UnexpectedReply, match="not JSON"):
        ca.check()


def test_the_proxy_of_the_environment_is_used_beyond_this_machine(
    scripted: ScriptedAcme, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers inside a network often reach public CAs in no other way."""
    monkeypatch.setenv("HTTPS_PROXY", scripted.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    with pytest.raises(Unreachable):
        connect(url="https://ca.example.test/dir").check()

    assert [request.path for request in scripted.requests] == ["ca.example.test:443"]
    assert "answers" in connect(url=f"{scripted.url}/dir").check()


@pytest.mark.parametrize("content", [None, "", "not PEM"])
def test_an_unusable_bundle_is_refused_at_once(
    tmp_path: Path, connect: Connect, content: str | None
) -> None:
    """Before any network."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)

    with pytest.raises(InvalidRequest, match=r"bundle\.pem"):
        connect(url="https://127.0.0.1:1/dir", ca_bundle=str(bundle))


# --- orders, in ways that real CAs were seen to behave -------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        Answer.problem("alreadyReplaced", 409),
        Answer.problem("malformed", 400, detail="unknown certificate in replaces"),
        Answer.problem("malformed", 404, detail="no such certificate"),
        Answer.problem("unauthorized", 403, detail="issued to another account"),
    ],
)
def test_a_refused_predecessor_is_left_out(
    scripted: ScriptedAcme, ca: AcmeCa, refusal: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a certificate replaced by hand could never be renewed again."""
    scripted.on("/order", [refusal, scripted.new_order()])

    with caplog.at_level(logging.WARNING, "certrail"):
        order = ca.open_order(spec("a.test", replaces="aki.serial"))

    first, second = scripted.asked("/order")
    assert first.json["replaces"] == "aki.serial"
    assert "replaces" not in second.json
    assert order.replaces == ""
    assert "aki.serial" in caplog.text


def test_other_refusals_are_not_about_the_predecessor(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """A second order would only use up the limit."""
    scripted.on("/order", Answer.problem("rejectedIdentifier", 400))

    with pytest.raises(Rejected):
        ca.open_order(spec("a.test", replaces="aki.serial"))
    assert len(scripted.asked("/order")) == 1


def test_an_accepted_predecessor_is_noted(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Orders with it are exempt from limits at some CAs."""
    order = ca.open_order(spec("a.test", replaces="aki.serial"))

    assert order.replaces == "aki.serial"


def test_orders_ask_for_what_was_wanted(scripted: ScriptedAcme, connect: Connect) -> None:
    """Names, addresses and profile, and nothing that was not asked for."""
    scripted.on("/dir", Answer(scripted.directory(meta={"profiles": {"short": "six days"}})))
    ca = connect(url=f"{scripted.url}/dir")

    ca.open_order(spec("a.test", "*.a.test", "2001:db8::1", profile="short"))
    with pytest.raises(InvalidRequest, match="it offers: short"):
        ca.open_order(spec("a.test", profile="long"))
    ca.open_order(spec("a.test"))

    first, second = scripted.asked("/order")
    assert first.json == {
        "identifiers": [
            {"type": "dns", "value": "a.test"},
            {"type": "dns", "value": "*.a.test"},
            {"type": "ip", "value": "2001:db8::1"},
        ],
        "profile": "short",
    }
    assert second.json == {"identifiers": [{"type": "dns", "value": "a.test"}]}


@pytest.mark.parametrize(
    ("status", "failed"), [("pending", True), ("invalid", True), ("processing", False)]
)
def test_an_error_on_a_challenge_is_a_failure_unless_the_ca_tries_again(
    scripted: ScriptedAcme, ca: AcmeCa, status: str, failed: bool
) -> None:
    """Caddy and step-ca leave a failed one "pending"; waiting for more would never end."""
    error = {"type": PROBLEM + "dns", "detail": "no TXT record"}
    challenges = [scripted.challenge(status=status, error=error)]
    scripted.on("/authz/1", Answer(scripted.authorization(challenges=challenges)))

    (authorization,) = ca.authorizations(order_of(scripted))

    assert authorization.status is AuthorizationStatus.PENDING
    assert bool(authorization.problem) is failed
    assert authorization.problem_code == (PROBLEM + "dns" if failed else "")


def test_an_error_of_an_earlier_attempt_does_not_spoil_a_valid_name(
    scripted: ScriptedAcme, ca: AcmeCa
) -> None:
    """Errors stay on the challenge that failed after another one succeeded."""
    challenges = [scripted.challenge(status="invalid", error={"type": PROBLEM + "dns"})]
    body = scripted.authorization(status="valid", challenges=challenges)
    scripted.on("/authz/1", Answer(body))

    (authorization,) = ca.authorizations(order_of(scripted))

    assert authorization.status is AuthorizationStatus.VALID
    assert authorization.problem == ""


def test_a_wildcard_is_recognised_without_the_cas_flag(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Some servers leave "wildcard" out."""
    scripted.on("/authz/1", Answer(scripted.authorization()))

    (authorization,) = ca.authorizations(order_of(scripted, names=["*.a.test"]))

    assert authorization.name == "*.a.test"
    assert authorization.challenges[0].name == "a.test"


def test_why_an_order_failed_is_told_with_the_name(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """The order's own error often says no more than "invalid"."""
    error = {"type": PROBLEM + "caa", "detail": "CAA forbids this CA"}
    challenges = [scripted.challenge(status="invalid", error=error)]
    body = scripted.authorization(status="invalid", challenges=challenges)
    scripted.on("/authz/1", Answer(body))
    scripted.on("/order/1", Answer(scripted.order(status="invalid")))

    with pytest.raises(Rejected, match=r"a\.test: CAA forbids this CA") as caught:
        ca.collect(order_of(scripted))

    assert caught.value.code == PROBLEM + "caa"
    assert "CAA record" in caught.value.remedy


def test_why_a_finalized_order_failed_is_told(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Issuing itself can fail after every name was validated."""
    scripted.on("/authz/1", Answer(scripted.authorization(status="valid")))
    error = {"type": PROBLEM + "badCSR", "detail": "key too small"}
    scripted.on("/order/1", Answer(scripted.order(status="invalid", error=error)))

    with pytest.raises(Rejected, match="key too small") as caught:
        ca.collect(order_of(scripted))
    assert caught.value.code == PROBLEM + "badCSR"


@pytest.mark.parametrize("status", ["pending", "ready", "processing"])
def test_a_pause_while_the_ca_works(scripted: ScriptedAcme, ca: AcmeCa, status: str) -> None:
    """The step waits as long as the CA asks; "ready" is seen again behind slow replicas."""
    scripted.on("/order/1", Answer(scripted.order(status=status), headers={"Retry-After": "7"}))

    assert ca.collect(order_of(scripted)) == Pending(timedelta(seconds=7))


def test_pauses_at_random_in_either_form(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Newer Pebbles toss a coin between seconds and a date; Debian's sends no pause at all."""
    # The date is counted from the server's own clock, which is an hour ahead here.
    clock = datetime.now(UTC) + timedelta(hours=1)
    date = format_datetime(clock + timedelta(seconds=4), usegmt=True)
    forms = [
        {"Retry-After": "4"},
        {"Retry-After": date, "Date": format_datetime(clock, usegmt=True)},
    ]
    orders = [Answer(scripted.order(status="processing"), headers=form) for form in forms]
    names = [Answer(scripted.authorization(), headers=form) for form in forms]
    scripted.on("/order/1", [*orders, *orders])
    scripted.on("/authz/1", [*names, *names])

    pauses = [ca.collect(order_of(scripted)) for _ in range(4)]
    waits = [ca.authorizations(order_of(scripted))[0].retry_after for _ in range(4)]

    assert pauses == [Pending(timedelta(seconds=4))] * 4
    assert waits == [timedelta(seconds=4)] * 4


def test_an_order_that_is_not_ready_is_a_conflict(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """The remedy is to validate, not to try again."""
    scripted.on("/order/1/finalize", Answer.problem("orderNotReady", 403))
    scripted.on("/order/1", Answer(scripted.order()))
    csr = build_csr(SubjectSpec(("a.test",)), generate(KeyAlgorithm.ECDSA_P256))

    with pytest.raises(Conflict) as caught:
        ca.finalize(order_of(scripted), csr)
    assert "validation" in caught.value.remedy


@pytest.mark.parametrize(
    "lapsed", [{"status": "expired"}, {"status": "valid", "expires": "2020-01-01T00:00:00Z"}]
)
def test_an_order_whose_validation_lapsed_before_the_csr_is_given_up(
    scripted: ScriptedAcme, ca: AcmeCa, lapsed: dict[str, str]
) -> None:
    """No retry of it ever yields a certificate; who retries needs another order."""
    scripted.on("/order/1/finalize", Answer.problem("orderNotReady", 403))
    scripted.on("/order/1", Answer(scripted.order(status="invalid")))
    scripted.on("/authz/1", Answer({**scripted.authorization(), **lapsed}))
    csr = build_csr(SubjectSpec(("a.test",)), generate(KeyAlgorithm.ECDSA_P256))

    with pytest.raises(Rejected, match=r"the validation of a\.test has lapsed") as caught:
        ca.finalize(order_of(scripted), csr)
    assert "a new order is made" in caught.value.remedy


def test_a_lost_answer_to_finalize_is_made_good(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """The connection broke after the CA took the CSR; asking again must not fail."""
    scripted.on("/order/1/finalize", [Answer("{", cut=9), Answer.problem("orderNotReady", 403)])
    valid = scripted.order(status="valid", certificate=f"{scripted.url}/c")
    scripted.on("/order/1", Answer(valid))
    csr = build_csr(SubjectSpec(("a.test",)), generate(KeyAlgorithm.ECDSA_P256))

    with pytest.raises(Unreachable):
        ca.finalize(order_of(scripted), csr)
    assert ca.finalize(order_of(scripted), csr).status is OrderStatus.VALID


def test_an_endless_list_of_orders_ends(scripted: ScriptedAcme, ca: AcmeCa) -> None:
    """Each page points to the next, and all are empty."""
    scripted.on("/account/1", Answer({"status": "valid", "orders": f"{scripted.url}/orders"}))
    links = {"Link": f'<{scripted.url}/orders>;rel="next"'}
    scripted.on("/orders", Answer({"orders": []}, headers=links))

    assert ca.unfinished_orders(["a.test"]) == ()


# --- renewal information and revocation ----------------------------------------------------------


def ari(scripted: ScriptedAcme, chain: Chain, ca: AcmeCa, answer: Answer) -> None:
    """Answer the question about *chain* so."""
    scripted.on(f"/ari/{ca.replaces_id(chain)}", answer)


def test_renewal_information_is_fetched_unsigned(
    scripted: ScriptedAcme, ca: AcmeCa, chain: Chain
) -> None:
    """RFC 9773 section 4.1: a plain GET, so that caches can answer."""
    window = {"start": "2030-01-01T00:00:00Z", "end": "2030-01-03T00:00:00Z"}
    ari(scripted, chain, ca, Answer({"suggestedWindow": window}, headers={"Retry-After": "1"}))

    info = ca.renewal_info(chain)

    assert info is not None
    assert info.start == datetime(2030, 1, 1, tzinfo=UTC)
    assert info.retry_after == timedelta(minutes=1)
    (request,) = scripted.asked(f"/ari/{ca.replaces_id(chain)}")
    assert (request.method, request.payload) == ("GET", None)


def test_a_certificate_the_ca_knows_nothing_of(ca: AcmeCa, chain: Chain) -> None:
    """Renewal goes by its lifetime then."""
    assert ca.renewal_info(chain) is None


def test_a_window_that_is_none_is_no_answer(
    scripted: ScriptedAcme, ca: AcmeCa, chain: Chain
) -> None:
    """It must not look like "renew now"."""
    window = {"start": "2030-01-03T00:00:00Z", "end": "2030-01-01T00:00:00Z"}
    ari(scripted, chain, ca, Answer({"suggestedWindow": window}))

    with pytest.raises(UnexpectedReply):
        ca.renewal_info(chain)


def test_a_reason_the_ca_does_not_take_is_left_out(
    scripted: ScriptedAcme, ca: AcmeCa, chain: Chain
) -> None:
    """That it is revoked matters more than why."""
    scripted.on("/revoke", [Answer.problem("badRevocationReason"), Answer()])

    ca.revoke(chain, RevocationReason.KEY_COMPROMISE)

    assert [request.json["reason"] for request in scripted.asked("/revoke")] == [1, 0]


def test_a_ca_without_revocation_says_so(
    scripted: ScriptedAcme, connect: Connect, chain: Chain
) -> None:
    """The person has to go to the CA's console."""
    scripted.on("/dir", Answer(scripted.directory(revokeCert=None)))

    with pytest.raises(InvalidRequest):
        connect(url=f"{scripted.url}/dir").revoke(chain, RevocationReason.SUPERSEDED)


# --- what goes over the wire ----------------------------------------------------------------------


def test_requests_are_signed_as_the_account(
    scripted: ScriptedAcme, ca: AcmeCa, answers_of: Callable[[], list[Request]]
) -> None:
    """kid, URL and a fresh nonce in every protected header (RFC 8555 section 6.2)."""
    ca.open_order(spec("a.test"))

    account, order = answers_of()
    assert account.header["jwk"]["crv"] == "P-256"
    assert "kid" not in account.header
    assert account.json == {"termsOfServiceAgreed": True}
    assert order.header["kid"] == f"{scripted.url}/account/1"
    assert "jwk" not in order.header
    assert order.header["url"] == f"{scripted.url}/order"
    assert {account.header["alg"], order.header["alg"]} == {"ES256"}


@pytest.fixture
def answers_of(scripted: ScriptedAcme) -> Callable[[], list[Request]]:
    """Return the signed requests so far."""
    return lambda: [request for request in scripted.requests if request.payload is not None]
