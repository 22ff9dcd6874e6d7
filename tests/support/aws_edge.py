"""AWS as the install targets see it: moto's server, with AWS's own strictness put before it.

moto answers the protocols (ACM, Elastic Load Balancing, CloudFront). It takes what AWS
refuses, so every call passes here first, and clients can connect to what it would serve:

* a private key that does not fit ("ImportCertificate"), a chain that is missing;
* an old version in ``If-Match`` ("UpdateDistribution": PreconditionFailed), certificates
  outside us-east-1 or for other names (InvalidViewerCertificate);
* deleting what is in use ("DeleteCertificate": ResourceInUseException);
* listings without key types show RSA 2048 only ("ListCertificates");
* changing the default certificate leaves the list alone, the default cannot be removed
  from it, one certificate a call ("ModifyListener", "RemoveListenerCertificates").

AWS API references, read November 2026.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import itertools
import json
import re
import secrets
import tempfile
import urllib.request
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import boto3  # type: ignore[import-untyped]
from cryptography import x509

from certrail.model import Bundle, subject_names
from tests.support.device import SITE, Device, Reply, Request, pairs
from tests.support.moto_server import REGION, Aws, aws

CLOUDFRONT_REGION = "us-east-1"
OTHER = "other.example.test"
PERMISSIONS = (
    "acm:ImportCertificate",
    "acm:AddTagsToCertificate",
    "acm:ListCertificates",
    "acm:ListTagsForCertificate",
    "acm:GetCertificate",
    "acm:DescribeCertificate",
    "acm:DeleteCertificate",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeListenerCertificates",
    "elasticloadbalancing:ModifyListener",
    "elasticloadbalancing:AddListenerCertificates",
    "elasticloadbalancing:RemoveListenerCertificates",
    "cloudfront:ListDistributions",
    "cloudfront:GetDistributionConfig",
    "cloudfront:UpdateDistribution",
)
_XMLNS = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
_number = itertools.count(1)


class _No(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@cache
def shared_moto() -> Aws:
    """Start moto once for the process; every world forgets what the one before it left."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moto-"))
    return stack.enter_context(aws(Path(folder)))


class AwsEdge(Device):
    """An account with a load balancer and a distribution; its subclasses say what is served.

    Attributes:
        keys: chain and key of every certificate imported, by ARN.
        refused: ARNs that load balancers and CloudFront do not take.
        lingering: ARNs that AWS still counts as used.
        unseen: ARNs that Elastic Load Balancing does not know of yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moto = shared_moto()
        self.keys: dict[str, tuple[str, bytes]] = {}
        self.refused: set[str] = set()
        self.lingering: set[str] = set()
        self.unseen: set[str] = set()
        self.defaults: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.viewers: dict[str, str] = {}
        self.aliases: dict[str, tuple[str, ...]] = {}
        self.tags: dict[str, str] = {}
        self._post("reset", b"")
        self._post("reset-auth", b"100000")
        self.access_key_id, self.secret_access_key = self.moto.user("installer", *PERMISSIONS)
        self.admin_key = self.moto.user("administrator", "*")
        self.listener, self.balancer = "", f"web{next(_number)}"
        self.distribution = ""
        self.prepare()
        self._post("reset-auth", b"0")

    def prepare(self) -> None:
        """Make what the connector finds."""
        raise NotImplementedError

    def admin(self, service: str, region: str = REGION) -> Any:
        """Return an administrator's client that talks to moto itself."""
        return boto3.client(
            service,
            endpoint_url=self.moto.url,
            region_name=region,
            aws_access_key_id=self.admin_key[0],
            aws_secret_access_key=self.admin_key[1],
        )

    def put(self, bundle: Bundle, region: str = REGION) -> str:
        """Import a certificate as an administrator; return its ARN."""
        assert bundle.key
        leaf, *rest = bundle.chain.pems
        arn: str = self.admin("acm", region).import_certificate(
            Certificate=leaf.encode(),
            PrivateKey=bundle.key.reveal(),
            CertificateChain="".join(rest).encode(),
        )["CertificateArn"]
        self.keys[arn] = (bundle.chain.text, bundle.key.reveal())
        return arn

    def snapshot(self) -> dict[str, bytes]:
        """Return what is stored and what uses it."""
        use = {"default": self.defaults, "list": self.lists, "viewer": self.viewers}
        return {
            **{f"certificate {arn}": chain.encode() for arn, (chain, _) in self.keys.items()},
            "use": json.dumps(use, sort_keys=True).encode(),
        }

    def in_use(self) -> set[str]:
        """Return the ARNs that something points to."""
        lists = {arn for arns in self.lists.values() for arn in arns}
        return {*self.defaults.values(), *lists, *self.viewers.values(), *self.lingering}

    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _No as no:
            return no.reply

    def _answer(self, request: Request) -> Reply:
        called = request.headers.get("x-amz-target", "").rpartition(".")[2]
        if called:
            return self._acm(called, request)
        if "/distribution" in request.path:
            return self._cloudfront(request)
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        return self._elb(form, request)

    def _forward(self, request: Request) -> Reply:
        """Let moto do it; it checks the access key and its permissions."""
        connection = http.client.HTTPConnection("127.0.0.1", self.moto.port, timeout=30)
        path = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        try:
            connection.request(request.method, path, request.body, dict(request.headers))
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        dropped = ("connection", "content-length", "transfer-encoding", "server", "date")
        kept = {name: value for name, value in reply.getheaders() if name.lower() not in dropped}
        if reply.status >= 400:
            raise _No(Reply(reply.status, content, kept))
        return Reply(reply.status, content, kept)

    def _acm(self, called: str, request: Request) -> Reply:
        body = json.loads(request.body)
        arn = str(body.get("CertificateArn", ""))
        if called == "ImportCertificate":
            return self._import(body, request)
        if called == "DeleteCertificate":
            if arn in self.in_use():
                raise _No(_json_error("ResourceInUseException", f"Certificate {arn} is in use."))
            reply = self._forward(request)
            self.keys.pop(arn, None)
            return reply
        reply = self._forward(request)
        if called == "ListCertificates":
            types = body.get("Includes", {}).get("keyTypes", ["RSA_2048"])
            found = json.loads(reply.content)
            found["CertificateSummaryList"] = [
                {**one, "InUse": one["CertificateArn"] in self.in_use()}
                for one in found["CertificateSummaryList"]
                if one["KeyAlgorithm"] in types
            ]
            return Reply(200, found, reply.headers)
        assert called in ("GetCertificate", "DescribeCertificate", "ListTagsForCertificate"), called
        return reply

    def _import(self, body: dict[str, Any], request: Request) -> Reply:
        leaf, key = (base64.b64decode(body[part]) for part in ("Certificate", "PrivateKey"))
        chain = base64.b64decode(body.get("CertificateChain", ""))
        assert "CertificateArn" not in body
        assert leaf.count(b"BEGIN CERTIFICATE") == 1
        if not pairs(leaf, key):
            text = "The private key is not supported or does not match the certificate."
            raise _No(_json_error("ValidationException", text))
        parsed = x509.load_pem_x509_certificate(leaf)
        if parsed.issuer != parsed.subject and not chain:
            raise _No(_json_error("ValidationException", "Could not validate the certificate."))
        for tag in body.get("Tags", ()):
            assert re.fullmatch(r"[\w\s.:/=+@-]{1,128}", tag["Key"])
            assert re.fullmatch(r"[\w\s.:/=+@-]{0,256}", tag["Value"]), tag
        reply = self._forward(request)
        arn = json.loads(reply.content)["CertificateArn"]
        self.keys[arn] = ((leaf + chain).decode(), key)
        return reply

    def _elb(self, form: dict[str, str], request: Request) -> Reply:
        action, listener = form["Action"], form.get("ListenerArn", "")
        arn = form.get("Certificates.member.1.CertificateArn", "")
        assert "Certificates.member.2.CertificateArn" not in form
        assert "Certificates.member.1.IsDefault" not in form
        if action in ("ModifyListener", "AddListenerCertificates"):
            if arn not in self.keys or arn in self.unseen:
                raise _No(_elb_error("CertificateNotFound", f"Certificate ARN '{arn}' not found"))
            if arn in self.refused:
                raise _No(_elb_error("InvalidConfigurationRequest", "The certificate is not valid"))
        if action == "RemoveListenerCertificates" and arn == self.defaults[listener]:
            raise _No(_elb_error("OperationNotPermitted", "The default cannot be removed"))
        reply = self._forward(request)
        shown: list[tuple[str, bool]] = []
        match action:
            case "DescribeLoadBalancers" | "DescribeListeners" | "GetServerCertificate":
                return reply
            case "ModifyListener":
                self.defaults[listener] = arn
                return reply
            case "AddListenerCertificates":
                if arn not in self.lists[listener]:
                    self.lists[listener].append(arn)
                shown = [(arn, False)]
            case "RemoveListenerCertificates":
                if arn in self.lists[listener]:
                    self.lists[listener].remove(arn)
            case "DescribeListenerCertificates":
                shown = [(self.defaults[listener], True)]
                shown += [(one, False) for one in self.lists[listener]]
            case _:
                raise AssertionError(f"not a documented call: {action}")
        members = "".join(
            f"<member><CertificateArn>{one}</CertificateArn>"
            f"<IsDefault>{str(default).lower()}</IsDefault></member>"
            for one, default in shown
        )
        text = (
            f'<{action}Response xmlns="{_XMLNS}"><{action}Result><Certificates>{members}'
            f"</Certificates></{action}Result><ResponseMetadata><RequestId>1</RequestId>"
            f"</ResponseMetadata></{action}Response>"
        )
        return Reply(200, text.encode(), {"Content-Type": "text/xml"})

    def _cloudfront(self, request: Request) -> Reply:
        found = re.fullmatch(r"/2020-05-31/distribution(?:/([A-Z0-9]+)/config)?", request.path)
        assert found, request.path
        id_ = found[1] or ""
        if f"Credential={self.access_key_id}/" not in request.headers.get("authorization", ""):
            text = "The security token included in the request is invalid."
            raise _No(_cloudfront_error(403, "InvalidClientTokenId", text))
        # moto calculates the signature of XML services in another way than AWS's own client.
        self._post("reset-auth", b"1")
        if request.method == "GET" or id_ not in self.viewers:
            reply = self._forward(request)
            return Reply(200, reply.body, {**reply.headers, **self._tag(id_)})
        assert request.method == "PUT"
        if request.headers.get("if-match", "") != self.tags[id_]:
            raise _No(_cloudfront_error(412, "PreconditionFailed", "The ETag does not match"))
        text = request.body.decode()
        named = re.search(r"<ACMCertificateArn>(.*?)</ACMCertificateArn>", text)
        arn = named[1] if named else ""
        aliases = re.findall(r"<CNAME>(.*?)</CNAME>", text)
        assert tuple(aliases) == self.aliases[id_], "the rest of the configuration is not kept"
        assert re.search(r"<MinimumProtocolVersion>TLSv1", text)
        assert "<SSLSupportMethod>sni-only" in text
        if arn not in self.keys or f":{CLOUDFRONT_REGION}:" not in arn or arn in self.refused:
            text = "The specified SSL certificate doesn't exist, isn't in us-east-1 region, or "
            raise _No(_cloudfront_error(400, "InvalidViewerCertificate", text + "isn't valid."))
        leaf = x509.load_pem_x509_certificate(self.keys[arn][0].encode())
        if not set(aliases) <= set(subject_names(leaf)):
            raise _No(_cloudfront_error(400, "InvalidViewerCertificate", "does not cover a CNAME"))
        reply = self._forward(request)
        self.viewers[id_] = arn
        self.tags[id_] = "E" + secrets.token_hex(6).upper()
        return Reply(200, reply.body, {**reply.headers, **self._tag(id_)})

    def _tag(self, id_: str) -> dict[str, str]:
        return {"ETag": self.tags[id_]} if id_ in self.tags else {}

    def _post(self, what: str, body: bytes) -> None:
        request = urllib.request.Request(
            f"{self.moto.url}/moto-api/{what}",
            data=body,
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        urllib.request.urlopen(request, timeout=20).close()


class AwsBalancer(AwsEdge):
    """An Application Load Balancer with an HTTPS listener; :data:`SITE` is its default."""

    def prepare(self) -> None:
        ec2, elb = self.admin("ec2"), self.admin("elbv2")
        subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]][:2]
        made = elb.create_load_balancer(Name=self.balancer, Subnets=subnets)["LoadBalancers"][0]
        answer = {"StatusCode": "200", "ContentType": "text/plain"}
        action = [{"Type": "fixed-response", "FixedResponseConfig": answer}]
        arn = made["LoadBalancerArn"]
        elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=80, DefaultActions=action)
        first = self.put(self.first())
        listener = elb.create_listener(
            LoadBalancerArn=arn,
            Protocol="HTTPS",
            Port=443,
            Certificates=[{"CertificateArn": first}],
            DefaultActions=action,
        )
        self.listener = listener["Listeners"][0]["ListenerArn"]
        self.defaults[self.listener] = first
        self.lists[self.listener] = []

    def first(self) -> Bundle:
        """Return what the default certificate is at first."""
        return self.old

    def live(self) -> tuple[str, bytes]:
        return self.keys[self.defaults[self.listener]]


class AwsSniBalancer(AwsBalancer):
    """The same; :data:`SITE` is one of the certificates in the listener's list."""

    def prepare(self) -> None:
        super().prepare()
        self.lists[self.listener] = [self.put(self.old)]

    def first(self) -> Bundle:
        return self.ca.bundle(OTHER)

    def live(self) -> tuple[str, bytes]:
        # The one for the name that is valid longest, as AWS chooses.
        found = [self.keys[arn] for arn in self.lists[self.listener]]
        fitting = [
            (x509.load_pem_x509_certificate(chain.encode()).not_valid_after_utc, number)
            for number, (chain, _) in enumerate(found)
            if SITE in subject_names(x509.load_pem_x509_certificate(chain.encode()))
        ]
        return found[max(fitting)[1]] if fitting else self.keys[self.defaults[self.listener]]


class AwsDistribution(AwsEdge):
    """A CloudFront distribution with :data:`SITE` as its alternate domain name."""

    def prepare(self) -> None:
        first = self.put(self.old, CLOUDFRONT_REGION)
        self.distribution = self.make(first, (SITE,))

    def make(self, arn: str, aliases: tuple[str, ...]) -> str:
        """Make a distribution; return its id."""
        viewer: dict[str, Any] = {"CloudFrontDefaultCertificate": True}
        if arn:
            viewer = {
                "ACMCertificateArn": arn,
                "CloudFrontDefaultCertificate": False,
                "SSLSupportMethod": "sni-only",
                "MinimumProtocolVersion": "TLSv1.2_2021",
            }
        origin = {
            "Id": "origin",
            "DomainName": "origin.example.test",
            "CustomOriginConfig": {
                "HTTPPort": 80,
                "HTTPSPort": 443,
                "OriginProtocolPolicy": "https-only",
            },
        }
        config = {
            "CallerReference": secrets.token_hex(8),
            "Aliases": {"Quantity": len(aliases), "Items": list(aliases)},
            "Origins": {"Quantity": 1, "Items": [origin]},
            "DefaultCacheBehavior": {
                "TargetOriginId": "origin",
                "ViewerProtocolPolicy": "redirect-to-https",
                "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
            },
            "Comment": "shop",
            "Enabled": True,
            "ViewerCertificate": viewer,
        }
        made = self.admin("cloudfront").create_distribution(DistributionConfig=config)
        id_: str = made["Distribution"]["Id"]
        self.viewers[id_], self.aliases[id_] = arn, aliases
        self.tags[id_] = "E" + secrets.token_hex(6).upper()
        return id_

    def live(self) -> tuple[str, bytes]:
        return self.keys[self.viewers[self.distribution]]


def _json_error(code: str, message: str) -> Reply:
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    return Reply(400, {"__type": code, "message": message}, headers)


def _elb_error(code: str, message: str) -> Reply:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    text = f'<ErrorResponse xmlns="{_XMLNS}">{error}<RequestId>1</RequestId></ErrorResponse>'
    return Reply(400, text.encode(), {"Content-Type": "text/xml"})


def _cloudfront_error(status: int, code: str, message: str) -> Reply:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    text = f'<ErrorResponse xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/">{error}'
    return Reply(
        status,
        f"{text}<RequestId>1</RequestId></ErrorResponse>".encode(),
        {"Content-Type": "text/xml"},
    )
