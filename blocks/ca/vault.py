"""The PKI secrets engine of OpenBao and of HashiCorp Vault.

Read for it, November 2026: "PKI secrets engine (API)" (sign certificate, revoke
certificate), "AppRole auth method (API)", "/sys/capabilities-self" and
"/sys/health" of both products. Run against OpenBao 2.7; HashiCorp's own server
was not at hand.

The engine signs at once and knows no orders. So a reply that is lost leaves a
certificate behind that nobody has, valid until it expires: the engine can be
asked for certificates by serial number only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, SecretStr, model_validator

from blocks._base import CaBlock, open_secret
from certrail.ca.answer import chain_of, common_name, dns_names, ip_addresses, must_be_for
from certrail.connectors import CertificateAuthority
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    NotFound,
    PermissionRefused,
    Rejected,
    Unreachable,
)
from certrail.log import effect, logger, plain
from certrail.model import (
    Chain,
    Csr,
    Order,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    serial_text,
)
from certrail.names import parse_names
from certrail.remote import http
from certrail.remote.http_errors import reason_of, retry_after
from certrail.wait import Pending


class VaultCa(CaBlock):
    """Issue through a role of a PKI mount in OpenBao or HashiCorp Vault.

    The account needs ``update`` on ``<mount>/sign/<role>`` and, to revoke, on
    ``<mount>/revoke``. Of its own, the role takes the names from the CSR
    (``use_csr_sans``), which Certrail fills with the names ordered.
    """

    _block_type_name = "Certrail CA: OpenBao or Vault PKI"
    _block_type_slug = "ca-vault"

    url: str = Field(description="Address of the server, such as https://vault.example.org:8200.")
    mount: str = Field(default="pki", description="Path that the PKI engine is mounted at.")
    role: str = Field(
        min_length=1, description="Role to sign with; a profile's ca_profile names another."
    )
    token: SecretStr | None = Field(
        default=None, description="Token, or a reference to it; or else use AppRole."
    )
    role_id: str = Field(default="", description="Role id of an AppRole to log in with.")
    secret_id: SecretStr | None = Field(
        default=None, description="Secret id of the AppRole, or a reference to it."
    )
    approle_mount: str = Field(default="approle", description="Path of the AppRole auth method.")
    namespace: str = Field(default="", description="Namespace of the mount, if there is one.")
    ttl_hours: int | None = Field(
        default=None, ge=1, le=87600, description="Validity asked for; the role's own if empty."
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the server; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the server may take.")

    @model_validator(mode="after")
    def _one_login(self) -> VaultCa:
        by_approle = bool(self.role_id or self.secret_id)
        if (self.token is not None) == by_approle:
            raise ValueError("give either a token, or role_id and secret_id")
        if by_approle and not (self.role_id and self.secret_id):
            raise ValueError("AppRole needs both role_id and secret_id")
        return self

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open the CA; with AppRole, the token of this login is revoked at the end."""
        headers = {"X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        with http.client(
            self.url.rstrip("/") + "/v1/",
            headers=headers,
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            session = _Session(
                client,
                self.label,
                token=SecretStr(open_secret(self.token)),
                role_id=self.role_id,
                secret_id=SecretStr(open_secret(self.secret_id)),
                login=f"auth/{_path(self.approle_mount)}/login",
                deadline=timedelta(seconds=self.timeout),
            )
            try:
                yield _Vault(session, self.mount, self.role, self.ttl_hours)
            finally:
                session.close()


class _Signed(BaseModel):
    certificate: str
    issuing_ca: str = ""
    ca_chain: list[str] = []


class _SignReply(BaseModel):
    data: _Signed
    warnings: list[str] | None = None


class _Auth(BaseModel):
    client_token: str


class _LoginReply(BaseModel):
    auth: _Auth


class _Capabilities(BaseModel):
    capabilities: list[str]


class _Session:
    """Requests with a token that is got when it is first needed."""

    def __init__(
        self,
        client: httpx.Client,
        label: str,
        *,
        token: SecretStr,
        role_id: str,
        secret_id: SecretStr,
        login: str,
        deadline: timedelta,
    ) -> None:
        self.label = label
        self._client = client
        self._token = token
        self._role_id = role_id
        self._secret_id = secret_id
        self._login_path = login
        self._deadline = deadline
        self._logged_in = False

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Send one request with our token.

        Raises:
            AuthenticationFailed: the token is not known to the server.
            PermissionRefused: it is, but no policy of it covers *path*.
            Unreachable: also when the server is sealed or has no active node.
        """
        if not self._token.get_secret_value():
            self._log_in()
        try:
            return self._send(method, path, body)
        except PermissionRefused as exc:
            # The server says "permission denied" to a wrong token as well.
            self._must_know_us(path)
            raise PermissionRefused(
                str(exc),
                remedy=f'Add `path "{path}" {{ capabilities = ["update"] }}` to a policy of the '
                "token or AppRole.",
                connector=self.label,
                code=exc.code,
            ) from exc

    def close(self) -> None:
        """Give back the token of a login."""
        if not self._logged_in:
            return
        self._logged_in = False
        try:
            self._send("POST", "auth/token/revoke-self", {})
        except CertrailError as exc:
            # It expires by itself.
            logger.debug("%s: the token of this login was not revoked: %s", self.label, exc)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        token = self._token.get_secret_value()
        content: dict[str, Any] = {} if body is None else {"json": dict(body)}
        reply = http.send(
            self._client,
            self.label,
            method,
            path,
            accept=(503,),
            deadline=self._deadline,
            headers={"X-Vault-Token": token} if token else {},
            hide=[self._secret_id.get_secret_value()],
            **content,
        )
        if reply.status_code == 503:
            said = reason_of(reply, [token])
            raise Unreachable(
                f"{self.label}: the server cannot work now: {said or 'status 503'}",
                remedy="Unseal it, or wait until a node is active, then retry.",
                connector=self.label,
                code="503",
                retry_after=retry_after(reply) if "Retry-After" in reply.headers else None,
            )
        return reply

    def _log_in(self) -> None:
        secret = self._secret_id.get_secret_value()
        try:
            reply = self._send(
                "POST", self._login_path, {"role_id": self._role_id, "secret_id": secret}
            )
        except (Rejected, PermissionRefused) as exc:
            raise AuthenticationFailed(
                str(exc),
                remedy="Set role_id and secret_id to a pair that is valid; secret ids may expire "
                "or be used up.",
                connector=self.label,
                code=exc.code,
            ) from exc
        self._token = SecretStr(http.json_of(reply, _LoginReply).auth.client_token)
        self._logged_in = True

    def _must_know_us(self, path: str) -> None:
        try:
            self._send("GET", "auth/token/lookup-self", None)
        except PermissionRefused as exc:
            raise AuthenticationFailed(
                f"{self.label}: the server does not know the token (asked for {path})",
                remedy="Set the token to one that is valid; it may have expired.",
                connector=self.label,
                code=exc.code,
            ) from exc


class _Vault(CertificateAuthority):
    def __init__(self, session: _Session, mount: str, role: str, ttl_hours: int | None) -> None:
        self._session = session
        self._mount = _path(mount)
        self._role = role
        self._ttl_hours = ttl_hours
        self._label = session.label

    def check(self) -> str:
        """Ask what our token may do with the role."""
        path = self._sign_path(self._role)
        reply = self._session.call("POST", "sys/capabilities-self", {"paths": [path]})
        granted = set(http.json_of(reply, _Capabilities).capabilities)
        if not granted & {"update", "root"}:
            raise PermissionRefused(
                f"{self._label}: the account may not sign with {path}",
                remedy=f'Add `path "{path}" {{ capabilities = ["update"] }}` to one of its '
                "policies.",
                connector=self._label,
            )
        return f"the server answers; the account may sign with {path}"

    def open_order(self, spec: OrderSpec) -> Order:
        names = [name.text for name in parse_names(spec.names)]
        role = spec.profile or self._role
        return Order(spec.key, "", OrderStatus.READY, data={"names": names, "role": role})

    def reopen(self, order: Order) -> Order:
        return order

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Sign. An order that carries a chain already is returned as it is.

        Raises:
            Rejected: the role does not allow the names or the key.
            NotFound: there is no such mount or role.
        """
        if "chain" in order.data:
            return order
        path = self._sign_path(order.data["role"])
        try:
            reply = self._session.call("POST", path, self._request(order.data["names"], csr))
        except NotFound as exc:
            raise self._absent(str(exc), exc.code) from exc
        except Rejected as exc:
            if "unknown role" in str(exc):
                raise self._absent(str(exc), exc.code) from exc
            raise Rejected(
                str(exc),
                remedy="Let the role allow these names and this key, or order others.",
                connector=self._label,
                code=exc.code,
            ) from exc
        signed = http.json_of(reply, _SignReply)
        for warning in signed.warnings or ():
            logger.info("%s: %s", self._label, plain(warning))
        data = signed.data
        chain = chain_of([data.certificate, *data.ca_chain, data.issuing_ca], self._label, csr)
        must_be_for(
            chain,
            order.data["names"],
            self._label,
            "Set use_csr_sans of the role to false if the CSR lacks the names.",
        )
        serial = serial_text(chain.leaf)
        effect("ca.issue", ca=self._label, serial=serial, names=",".join(order.data["names"]))
        return replace(
            order,
            remote_id=serial,
            status=OrderStatus.VALID,
            data={**order.data, "chain": list(chain.pems)},
        )

    def collect(self, order: Order) -> Chain | Pending:
        # Kept with the order, since a role may be told to store nothing.
        return Chain(tuple(order.data["chain"])) if "chain" in order.data else Pending()

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        """Revoke by serial number; the engine takes no reasons, so it goes to our log only.

        Raises:
            NotFound: the mount did not issue it.
        """
        path, serial = f"{self._mount}/revoke", serial_text(chain.leaf)
        try:
            try:
                self._session.call("POST", path, {"serial_number": serial})
            except Rejected:
                # What was not stored is revoked by the certificate itself.
                self._session.call("POST", path, {"certificate": chain.pems[0]})
        except (Rejected, Unreachable) as exc:
            # OpenBao answers 500 to a certificate that it cannot verify.
            if isinstance(exc, Unreachable) and "unable to verify signature" not in str(exc):
                raise
            raise NotFound(
                str(exc),
                remedy="Revoke it at the mount that issued it.",
                connector=self._label,
                code=exc.code,
            ) from exc
        effect("ca.revoke", ca=self._label, serial=serial, reason=reason)

    def _sign_path(self, role: str) -> str:
        return f"{self._mount}/sign/{quote(role, safe='')}"

    def _request(self, names: list[str], csr: Csr) -> dict[str, Any]:
        body = {
            "csr": csr.pem,
            "common_name": common_name(names),
            "alt_names": ",".join(dns_names(names)),
            "ip_sans": ",".join(ip_addresses(names)),
            # The common name is among the names already.
            "exclude_cn_from_sans": True,
            "remove_roots_from_chain": True,
        }
        if self._ttl_hours:
            body["ttl"] = f"{self._ttl_hours}h"
        return body

    def _absent(self, text: str, code: str) -> NotFound:
        return NotFound(
            text,
            remedy=f"Check mount ({plain(self._mount)}) and role of the connector and the "
            "profile's ca_profile.",
            connector=self._label,
            code=code,
        )


def _path(text: str) -> str:
    return quote(text.strip("/"))
