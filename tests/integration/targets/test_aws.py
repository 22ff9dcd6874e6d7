"""What is peculiar to certificates in AWS: ACM, lists of names, versions of a configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from blocks.targets.aws import CloudFrontTarget, ElbTarget
from certrail.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Unreachable,
)
from certrail.model import Bundle, Chain, Site
from certrail.private_key import PrivateKeyPem
from certrail.remote import aws
from tests.support.aws_edge import (
    CLOUDFRONT_REGION,
    OTHER,
    AwsBalancer,
    AwsDistribution,
    AwsEdge,
    AwsSniBalancer,
)
from tests.support.device import SITE, Reply, Request
from tests.support.moto_server import REGION
from tests.support.process import wait_for
from tests.support.tls_servers import Authority


@contextmanager
def session(device: AwsEdge, folder: Path, region: str = REGION) -> Iterator[aws.Session]:
    """Open a session as the connectors do."""
    roots = folder / "roots.pem"
    roots.write_text(device.roots)
    with aws.session(
        region=region,
        access_key_id=device.access_key_id,
        secret_access_key=device.secret_access_key,
        endpoint_url=device.url,
        ca_bundle=str(roots),
    ) as opened:
        yield opened


@pytest.fixture
def balancer() -> Iterator[AwsBalancer]:
    with AwsBalancer().running() as device:
        yield device


@pytest.fixture
def distribution() -> Iterator[AwsDistribution]:
    with AwsDistribution().running() as device:
        yield device


def place(device: AwsEdge, host: str = "") -> Site:
    """Return the default of the listener, or one of its list."""
    return Site(f"{device.balancer}:443" + (f"/{host}" if host else ""))


def p384(name: str) -> Bundle:
    """Return a certificate with a key that CloudFront does not take."""
    issued = Authority.root().issue(name, key=ec.generate_private_key(ec.SECP384R1()))
    return Bundle(Chain.of(list(issued.chain)), PrivateKeyPem(issued.key_pem().encode()))


def test_a_lost_reply_leaves_no_second_certificate(balancer: AwsBalancer, tmp_path: Path) -> None:
    """It was imported and nobody told us: ACM is searched before anything is imported again."""
    bundle = balancer.ca.bundle(SITE)
    balancer.fault("POST", "#ImportCertificate", cut=True, after=True)
    with session(balancer, tmp_path) as opened:
        with pytest.raises(Unreachable):
            ElbTarget(opened, "aws").stage(place(balancer), bundle, None)
        staged = ElbTarget(opened, "aws").stage(place(balancer), bundle, None)

    assert len(balancer.keys) == 2
    assert staged.data["new"] in balancer.keys


def test_what_is_still_in_use_goes_with_a_later_change(
    balancer: AwsBalancer, tmp_path: Path
) -> None:
    """AWS counts a certificate as used for minutes after the switch, and refuses to delete it."""
    with session(balancer, tmp_path) as opened:
        target, made = ElbTarget(opened, "aws"), []
        for number in range(3):
            # ACM tells the second of an import, and what is as old as the live one stays.
            begun = int(time.time())
            wait_for(lambda begun=begun: int(time.time()) > begun, "the next second")  # type: ignore[misc]
            staged = target.stage(place(balancer), balancer.ca.bundle(SITE), None)
            target.activate(staged)
            made.append(staged.data["new"])
            if number == 1:
                balancer.lingering = {made[0]}
            target.discard(staged)
            if number == 1:
                assert made[0] in balancer.keys
            balancer.lingering = set()
        (first,) = [arn for arn in balancer.keys if arn not in made]

    assert set(balancer.keys) == {first, made[2]}, "ours are gone, the one of others stays"


def test_names_of_the_list_have_certificates_of_their_own(tmp_path: Path) -> None:
    """A listener has one default and many names; neither may touch the other."""
    with AwsSniBalancer().running() as device, session(device, tmp_path) as opened:
        default, (listed,) = device.defaults[device.listener], device.lists[device.listener]
        target = ElbTarget(opened, "aws")
        found = {site.id: site.names for site in target.sites()}
        fresh = target.stage(
            place(device, "new.example.test"), device.ca.bundle("new.example.test"), None
        )
        line = target.activate(fresh)

        assert found == {
            f"{device.balancer}:443": (OTHER,),
            f"{device.balancer}:443/{SITE}": (SITE,),
        }
        assert "new.example.test" in line
        assert fresh.replaces is None
        assert device.lists[device.listener] == [listed, fresh.data["new"]]
        assert device.defaults[device.listener] == default
        assert "none again" in target.restore(fresh)
        assert device.lists[device.listener] == [listed]
        with pytest.raises(InvalidRequest, match="not for other"):
            target.stage(place(device, "other.example.test"), device.ca.bundle(SITE), None)


def test_half_a_switch_of_the_list_is_finished(tmp_path: Path) -> None:
    """The new one was added, then the worker died: the old one is still to be removed."""
    with AwsSniBalancer().running() as device, session(device, tmp_path) as opened:
        target = ElbTarget(opened, "aws")
        staged = target.stage(place(device, SITE), device.ca.bundle(SITE), None)
        device.fault("POST", "#RemoveListenerCertificates", cut=True)
        with pytest.raises(Unreachable):
            target.activate(staged)
        assert len(device.lists[device.listener]) == 2

        target.activate(staged)

        assert device.lists[device.listener] == [staged.data["new"]]


def test_a_certificate_that_is_not_seen_yet_is_worth_a_retry(
    balancer: AwsBalancer, tmp_path: Path
) -> None:
    """ACM has it, the load balancer learns of it seconds later."""
    with session(balancer, tmp_path) as opened:
        target = ElbTarget(opened, "aws")
        staged = target.stage(place(balancer), balancer.ca.bundle(SITE), None)
        balancer.unseen = {staged.data["new"]}
        with pytest.raises(Busy) as caught:
            target.activate(staged)
        assert caught.value.retryable

        balancer.unseen = set()
        target.activate(staged)

        assert balancer.served() == staged.fingerprint


def test_a_certificate_of_iam_is_replaced(balancer: AwsBalancer, tmp_path: Path) -> None:
    """Older listeners have theirs in IAM; its fingerprint is what is to be replaced."""
    old = balancer.ca.bundle(SITE)
    assert old.key
    iam = balancer.admin("iam")
    arn = iam.upload_server_certificate(
        ServerCertificateName="www",
        CertificateBody=old.chain.pems[0],
        PrivateKey=old.key.reveal().decode(),
    )["ServerCertificateMetadata"]["Arn"]
    balancer.defaults[balancer.listener] = arn
    balancer.keys[arn] = (old.chain.text, old.key.reveal())
    iam.put_user_policy(
        UserName="installer",
        PolicyName="iam",
        PolicyDocument='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", '
        '"Action": "iam:GetServerCertificate", "Resource": "*"}]}',
    )
    with session(balancer, tmp_path) as opened:
        target = ElbTarget(opened, "aws")
        staged = target.stage(place(balancer), balancer.ca.bundle(SITE), old.chain.fingerprint)
        target.activate(staged)
        assert balancer.served() == staged.fingerprint
        target.restore(staged)

    assert balancer.served() == old.chain.fingerprint


@pytest.mark.parametrize("site", ["web", "web:x", "a b:443", "web:443/", "x" * 33 + ":443"])
def test_places_are_checked_first(balancer: AwsBalancer, tmp_path: Path, site: str) -> None:
    """Before anything is asked or imported."""
    with session(balancer, tmp_path) as opened, pytest.raises(InvalidRequest) as caught:
        ElbTarget(opened, "aws").serving(Site(site))

    assert "NAME:PORT" in caught.value.remedy


def test_a_listener_that_is_not_there_is_told(balancer: AwsBalancer, tmp_path: Path) -> None:
    """The port without TLS counts as none."""
    with session(balancer, tmp_path) as opened:
        for site in (f"{balancer.balancer}:80", "nothing:443"):
            with pytest.raises(NotFound) as caught:
                ElbTarget(opened, "aws").serving(Site(site))
            assert caught.value.remedy


def test_a_missing_permission_is_named(balancer: AwsBalancer, tmp_path: Path) -> None:
    """A role that may look but not change is a common mistake."""
    key = balancer.admin("iam")
    key.delete_user_policy(UserName="installer", PolicyName="lab")
    with session(balancer, tmp_path) as opened, pytest.raises(PermissionRefused) as caught:
        ElbTarget(opened, "aws").check()

    assert "elasticloadbalancing" in caught.value.remedy


def test_a_distribution_changed_by_somebody_else_is_read_again(
    distribution: AwsDistribution, tmp_path: Path
) -> None:
    """The whole configuration is written at once: theirs would be lost, so ours waits."""
    answer = distribution.answer

    def raced(request: Request) -> Reply:
        if request.method == "PUT":
            distribution.tags[distribution.distribution] = "ETHEIRS"
            distribution.answer = answer  # type: ignore[method-assign]
        return answer(request)

    with session(distribution, tmp_path, CLOUDFRONT_REGION) as opened:
        target = CloudFrontTarget(opened, "cdn")
        site = Site(distribution.distribution)
        staged = target.stage(site, distribution.ca.bundle(SITE), None)
        distribution.answer = raced  # type: ignore[method-assign]
        with pytest.raises(Busy) as caught:
            target.activate(staged)
        assert caught.value.remedy
        assert distribution.served() == distribution.old.chain.fingerprint

        target.activate(staged)

    assert distribution.served() == staged.fingerprint


def test_a_distribution_without_names_keeps_its_own_certificate(
    distribution: AwsDistribution, tmp_path: Path
) -> None:
    """Refused before anything is imported."""
    bare = distribution.make("", ())
    before = distribution.snapshot()
    with session(distribution, tmp_path, CLOUDFRONT_REGION) as opened:
        target = CloudFrontTarget(opened, "cdn")
        with pytest.raises(InvalidRequest, match="alternate domain names"):
            target.stage(Site(bare), distribution.ca.bundle(SITE), None)
        found = {site.id: site for site in target.sites()}

    assert before == distribution.snapshot()
    assert found[bare].fingerprint is None
    assert found[distribution.distribution].names == (SITE,)


def test_keys_that_cloudfront_does_not_take(distribution: AwsDistribution, tmp_path: Path) -> None:
    """ACM takes P-384, CloudFront does not: refused before it is imported."""
    with session(distribution, tmp_path, CLOUDFRONT_REGION) as opened:
        target = CloudFrontTarget(opened, "cdn")
        with pytest.raises(InvalidRequest, match="takes no ECDSA P-384"):
            target.stage(Site(distribution.distribution), p384(SITE), None)

    assert len(distribution.keys) == 1
