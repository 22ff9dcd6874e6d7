"""Any CA that a program of your own can talk to.

The program is started anew for each call, without a shell, in an environment
that holds nothing but ``PATH``, ``LANG``, the connector's ``environment`` and:

====================== ==========================================================
``CERTRAIL_ACTION``    ``check``, ``issue``, ``collect`` or ``revoke``
``CERTRAIL_REFERENCE`` our reference to the order (issue, collect)
``CERTRAIL_ORDER``     what the program called the order (collect)
``CERTRAIL_NAMES``     the names ordered, separated by commas (issue, collect)
``CERTRAIL_PROFILE``   the profile's ``ca_profile``, may be empty (issue)
``CERTRAIL_REASON``    a reason of RFC 5280 section 5.3.1 (revoke)
``CERTRAIL_SECRET``    the connector's ``secret``, if it has one
====================== ==========================================================

Standard input is the CSR in PEM (issue), the chain in PEM (revoke) or empty.
Standard output is one JSON object:

* ``{"chain": "-----BEGIN CERTIFICATE…"}``: issued; leaf and intermediates;
* ``{"pending": 30, "order": "4711"}``: not yet; ask again in so many seconds;
* ``{"refused": "why", "code": "its own word"}``: never;
* ``{"ok": "one line for people"}``: to check and revoke.

The exit code is 0 with each of these. Otherwise standard error goes into the
message, and 75 means "try again later", 77 "wrong credential" (sysexits.h);
any other is a failure that a retry does not cure. The program has to treat the
same reference with the same CSR as the same order: a call whose answer was
lost is made again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from blocks._base import CaBlock, open_secret
from certrail.ca.answer import chain_of, must_be_for
from certrail.connectors import CertificateAuthority, CommandResult
from certrail.errors import (
    AuthenticationFailed,
    InvalidRequest,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import effect, plain
from certrail.model import Chain, Csr, Order, OrderSpec, OrderStatus, RevocationReason, serial_text
from certrail.names import parse_names
from certrail.remote.local_process import run_process
from certrail.wait import Pending

_Action = Literal["check", "issue", "collect", "revoke"]

_LIMIT = 1024 * 1024
_LONGEST_WORDS = 300
_TRY_LATER, _NO_PERMISSION = 75, 77  # EX_TEMPFAIL and EX_NOPERM of sysexits.h
_CANNOT_START = (126, 127)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandCa(CaBlock):
    """Issue through a program on the worker; see the module for what it has to do."""

    _block_type_name = "Certrail CA: own program"
    _block_type_slug = "ca-command"

    command: list[str] = Field(
        min_length=1,
        description="The program (absolute path) and its arguments, one list item each; no shell "
        "is involved.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Further environment variables; no secrets."
    )
    secret: SecretStr | None = Field(
        default=None, description="Given to the program as CERTRAIL_SECRET, never as an argument."
    )
    timeout: int = Field(
        default=60, ge=1, le=600, description="Seconds the program may take for one call."
    )

    @field_validator("command")
    @classmethod
    def _absolute(cls, command: list[str]) -> list[str]:
        if not os.path.isabs(command[0]):
            raise ValueError("give the program by its absolute path")
        if any("\0" in part for part in command):
            raise ValueError("an argument cannot hold a NUL character")
        return command

    @field_validator("environment")
    @classmethod
    def _ours_are_taken(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r} is no name of an environment variable")
            if name.startswith("CERTRAIL_"):
                raise ValueError("names that begin with CERTRAIL_ are set by Certrail")
        return environment

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open the CA; the program is started at each call."""
        yield _Command(
            self.command,
            {"PATH": _PATH, "LANG": "C.UTF-8", **self.environment},
            SecretStr(open_secret(self.secret)),
            timedelta(seconds=self.timeout),
            self.label,
        )


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain: str | None = None
    pending: float | None = Field(default=None, ge=0, le=86400)
    order: str = ""
    refused: str | None = None
    code: str = ""
    ok: str | None = None


class _Command(CertificateAuthority):
    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        secret: SecretStr,
        timeout: timedelta,
        label: str,
    ) -> None:
        self._command = command
        self._environment = environment
        self._secret = secret
        self._timeout = timeout
        self._label = label

    def check(self) -> str:
        """Ask the program itself."""
        answer = self._run("check")
        if answer.ok is None:
            raise self._unexpected("check", "it lacks `ok`")
        return self._clean(answer.ok) or "the program is content"

    def open_order(self, spec: OrderSpec) -> Order:
        names = [name.text for name in parse_names(spec.names)]
        data = {"names": names, "profile": spec.profile}
        return Order(spec.key, "", OrderStatus.READY, data=data)

    def reopen(self, order: Order) -> Order:
        return order

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Let the program issue. An order that it has taken already is returned as it is."""
        if order.status is not OrderStatus.READY:
            return order
        answer = self._run("issue", csr.pem, order)
        if answer.chain is not None:
            chain = chain_of([answer.chain], self._label, csr)
            self._must_fit(chain, order)
            serial = serial_text(chain.leaf)
            effect("ca.issue", ca=self._label, serial=serial, names=",".join(order.data["names"]))
            return replace(
                order,
                remote_id=answer.order or serial,
                status=OrderStatus.VALID,
                data={**order.data, "chain": list(chain.pems)},
            )
        if answer.pending is None or not answer.order:
            raise self._unexpected("issue", "it has neither `chain` nor `pending` with `order`")
        effect("ca.order", ca=self._label, order=answer.order)
        return replace(order, remote_id=answer.order, status=OrderStatus.PROCESSING)

    def collect(self, order: Order) -> Chain | Pending:
        if "chain" in order.data:
            return Chain(tuple(order.data["chain"]))
        if order.status is OrderStatus.READY:
            return Pending()
        answer = self._run("collect", order=order)
        if answer.chain is not None:
            chain = chain_of([answer.chain], self._label)
            self._must_fit(chain, order)
            return chain
        if answer.pending is None:
            raise self._unexpected("collect", "it has neither `chain` nor `pending`")
        return Pending(timedelta(seconds=answer.pending))

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        answer = self._run("revoke", chain.text, reason=reason)
        if answer.ok is None:
            raise self._unexpected("revoke", "it lacks `ok`")
        effect("ca.revoke", ca=self._label, serial=serial_text(chain.leaf), reason=reason)

    def _must_fit(self, chain: Chain, order: Order) -> None:
        remedy = "Let the program order exactly the names in CERTRAIL_NAMES."
        must_be_for(chain, order.data["names"], self._label, remedy)

    def _run(
        self, action: _Action, stdin: str = "", order: Order | None = None, reason: str = ""
    ) -> _Answer:
        result = run_process(
            self._command,
            stdin=stdin.encode(),
            timeout=self._timeout,
            limit=_LIMIT + 1,
            host="this worker",
            what=f"{self._label}: {self._command[0]} ({action})",
            env=self._variables(action, order, reason),
        )
        if result.exit_code:
            raise self._failure(action, result)
        if len(result.stdout) > _LIMIT:
            raise self._unexpected(action, f"it is longer than {_LIMIT} bytes")
        try:
            answer = _Answer.model_validate_json(result.stdout)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            place = plain(".".join(str(part) for part in first["loc"]))
            # Outside the handler's chain: pydantic's error quotes the output.
            error = self._unexpected(action, f"{place}: {first['msg']}".lstrip(": "))
        else:
            if answer.refused is not None:
                raise Rejected(
                    f"{self._label}: refused: {self._clean(answer.refused)}",
                    remedy="Correct what the program complains about, then start a new request.",
                    connector=self._label,
                    code=self._clean(answer.code),
                )
            return answer
        raise error

    def _variables(self, action: _Action, order: Order | None, reason: str) -> dict[str, str]:
        variables = {**self._environment, "CERTRAIL_ACTION": action}
        if secret := self._secret.get_secret_value():
            variables["CERTRAIL_SECRET"] = secret
        if reason:
            variables["CERTRAIL_REASON"] = reason
        if order is not None:
            variables["CERTRAIL_REFERENCE"] = order.key
            variables["CERTRAIL_ORDER"] = order.remote_id
            variables["CERTRAIL_NAMES"] = ",".join(order.data["names"])
            variables["CERTRAIL_PROFILE"] = order.data["profile"]
        return variables

    def _failure(
        self, action: _Action, result: CommandResult
    ) -> AuthenticationFailed | InvalidRequest | UnexpectedReply | Unreachable:
        said = self._clean(result.stderr.decode(errors="replace"))
        text = f"{self._label}: {plain(self._command[0])} ({action}) "
        if result.exit_code in _CANNOT_START and not result.stdout:
            return InvalidRequest(
                f"{text}cannot be started: {said}",
                remedy="Install the program on every worker, executable by the worker's account.",
            )
        text += f"ended with exit code {result.exit_code}" + (f": {said}" if said else "")
        if result.exit_code == _TRY_LATER:
            return Unreachable(text, connector=self._label, code="75")
        if result.exit_code == _NO_PERMISSION:
            return AuthenticationFailed(text, connector=self._label, code="77")
        return UnexpectedReply(
            text,
            remedy="Look at what the program says, correct it, then retry.",
            connector=self._label,
            code=str(result.exit_code),
        )

    def _unexpected(self, action: _Action, why: str) -> UnexpectedReply:
        return UnexpectedReply(
            f"{self._label}: the answer of {plain(self._command[0])} to {action} is not as "
            f"documented: {why}",
            remedy="Correct the program: its standard output has to be one JSON object.",
            connector=self._label,
        )

    def _clean(self, text: str) -> str:
        """Return the program's words on one short line, without the secret."""
        if secret := self._secret.get_secret_value():
            text = text.replace(secret, "<hidden>")
        text = plain(" ".join(text.split()))
        return text if len(text) <= _LONGEST_WORDS else text[: _LONGEST_WORDS - 1] + "…"
