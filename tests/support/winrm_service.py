"""A WinRM service: WS-Management with PowerShell remoting and the older shell for programs.

Envelopes, faults and their codes from [MS-WSMV] (3.1.4.1 to 3.1.4.14, 2.2.4.40) and
``wsmerror.h``; what PowerShell sends inside is handled by psrpcore, another
implementation of [MS-PSRP] than that of the connector. Basic is the one way to log in.
"""

from __future__ import annotations

import base64
import re
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from psrpcore import (
    CreatePipelineEvent,
    PSRPPayload,
    ServerPipeline,
    ServerRunspacePool,
    StreamType,
)
from psrpcore.types import (
    ErrorCategory,
    ErrorCategoryInfo,
    ErrorRecord,
    NETException,
    PSCustomObject,
    PSInvocationState,
)

from tests.support.device import Device, Reply, Request

USER, PASSWORD = "web1\\deploy", "s3cret-Passphrase"
MAX_SHELLS = 5

_NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "rsp": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell",
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
    "ps": "http://schemas.microsoft.com/powershell",
}
_ANONYMOUS = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
_POWERSHELL = "http://schemas.microsoft.com/powershell/Microsoft.PowerShell"
_CMD = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd"
_TERMINATE = re.compile(r".*/signal/terminate", re.IGNORECASE)
_SOAP = {"Content-Type": "application/soap+xml;charset=UTF-8"}
_ACCESS_DENIED, _NO_SHELL, _QUOTA, _TIMED_OUT = 5, 2150858843, 2150859173, 2150858793


class Failed(Exception):
    """A command of PowerShell failed; ``ErrorAction`` decides what that means."""

    def __init__(
        self,
        message: str,
        error_id: str,
        category: ErrorCategory = ErrorCategory.NotSpecified,
        kind: str = "System.Management.Automation.RuntimeException",
    ) -> None:
        super().__init__(message)
        self.error_id = error_id
        self.category = category
        self.kind = kind

    def record(self) -> ErrorRecord:
        """Return what PowerShell writes about it."""
        exception = NETException(Message=str(self))
        exception.PSObject.type_names.insert(0, self.kind)
        return ErrorRecord(
            Exception=exception,
            CategoryInfo=ErrorCategoryInfo(Category=self.category),
            FullyQualifiedErrorId=self.error_id,
        )


class _Fault(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Step:
    """One command of a pipeline as it arrived."""

    name: str
    parameters: list[tuple[str | None, Any]]


@dataclass
class Shell:
    """An open shell; ``modules`` are those that its session has loaded.

    ``exit_code`` is that of the last program.
    """

    resource: str
    pool: ServerRunspacePool | None = None
    modules: set[str] = field(default_factory=set)
    exit_code: int | None = None
    waiting: dict[str, bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


class _Call(Request):
    @property
    def called(self) -> str:
        """The path, what is asked of WinRM, and the commands of a pipeline."""
        action = re.search(rb"Action[^>]*>[^<]*/(\w+)</", self.body)
        text = f"{self.path}#{action[1].decode() if action else ''}"
        for part in re.findall(rb"Arguments>([^<]+)<", self.body):
            try:
                sent = base64.b64decode(part, validate=True)
            except ValueError:
                continue
            for name in re.findall(rb'N="Cmd">([^<]+)<|>(\w+SslCertificate)<', sent):
                text += f" {b''.join(name).decode()}"
        return text


class WinRm(Device):
    """A machine that is administered through WinRM."""

    def __init__(self) -> None:
        super().__init__()
        self.shells: dict[str, Shell] = {}
        self.right = "administrators"
        """Of the account: ``administrators``, ``remote management`` or ``nothing``."""
        self.pipelines: list[list[Step]] = []

    @abstractmethod
    def run(self, shell: Shell, steps: Sequence[Step]) -> list[Any]:
        """Run a pipeline; returns its objects, a dict for each that has properties.

        Raises:
            Failed: one of its commands did.
        """

    @abstractmethod
    def program(self, name: str, arguments: Sequence[str]) -> str:
        """Run a program and return what it prints."""

    def read(self, request: Request) -> Request:
        return _Call(**vars(request))

    def answer(self, request: Request) -> Reply:
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            challenge = 'Basic realm="WSMAN"'
            return Reply(401, b"", {"WWW-Authenticate": challenge})
        if request.path != "/wsman":
            return Reply(404, b"")
        assert request.method == "POST"
        assert "application/soap+xml" in request.headers["content-type"]
        envelope = ElementTree.fromstring(request.body)
        header, body = envelope.find("s:Header", _NS), envelope.find("s:Body", _NS)
        assert header is not None
        assert body is not None
        action = _text(header, "a:Action").rpartition("/")[2]
        message = _text(header, "a:MessageID")
        assert message.startswith("uuid:")
        assert _text(header, "a:ReplyTo/a:Address") == _ANONYMOUS
        assert re.fullmatch(r"PT[0-9.]+S", _text(header, "w:OperationTimeout"))
        assert len(request.body) <= int(_text(header, "w:MaxEnvelopeSize"))
        resource = _text(header, "w:ResourceURI")
        selectors = header.findall("w:SelectorSet/w:Selector", _NS)
        named = {one.attrib["Name"]: one.text or "" for one in selectors}.get("ShellId", "")
        handler = getattr(self, f"_on_{action.lower()}", None)
        assert handler, f"{action} is not known"
        try:
            if self.right == "nothing":
                raise _Fault(_ACCESS_DENIED, "Access is denied.")
            if action == "Create":
                answered = self._on_create(resource, body, header)
            else:
                shell = self.shells.get(named)
                if shell is None or shell.resource != resource:
                    raise _Fault(
                        _NO_SHELL,
                        "The request for the Windows Remote Shell with "
                        f"ShellId {named} failed because the shell was not found on the server.",
                    )
                answered = handler(named, shell, body)
        except _Fault as fault:
            return Reply(500, _envelope("fault", message, _fault(fault)), _SOAP)
        return Reply(200, _envelope(f"{action}Response", message, answered), _SOAP)

    def _on_create(
        self, resource: str, body: ElementTree.Element, header: ElementTree.Element
    ) -> str:
        asked = body.find("rsp:Shell", _NS)
        assert asked is not None
        if len(self.shells) >= MAX_SHELLS:
            raise _Fault(
                _QUOTA,
                "The WS-Management service cannot process the request. The maximum number of "
                "concurrent shells for this user has been exceeded.",
            )
        shell_id = asked.attrib.get("ShellId") or str(uuid.uuid4()).upper()
        shell = Shell(resource)
        if resource == _POWERSHELL:
            options = {
                one.attrib["Name"]: one.text for one in header.findall("w:OptionSet/w:Option", _NS)
            }
            assert options["protocolversion"] == "2.3"
            assert _text(asked, "rsp:InputStreams") == "stdin pr"
            shell.pool = ServerRunspacePool()
            self._feed(shell, _text(asked, "ps:creationXml"), None)
        else:
            assert resource == _CMD, resource
        self.shells[shell_id] = shell
        selector = f'<w:Selector Name="ShellId">{escape(shell_id)}</w:Selector>'
        return (
            f"<x:ResourceCreated><a:Address>{escape(self.url)}/wsman</a:Address>"
            f"<a:ReferenceParameters><w:ResourceURI>{resource}</w:ResourceURI>"
            f"<w:SelectorSet>{selector}</w:SelectorSet></a:ReferenceParameters>"
            f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{escape(shell_id)}</rsp:ShellId>"
            f"<rsp:ResourceUri>{resource}</rsp:ResourceUri><rsp:Owner>{escape(USER)}</rsp:Owner>"
            "<rsp:OutputStreams>stdout</rsp:OutputStreams></rsp:Shell>"
        )

    def _on_command(self, _: str, shell: Shell, body: ElementTree.Element) -> str:
        line = body.find("rsp:CommandLine", _NS)
        assert line is not None
        given = [one.text or "" for one in line.findall("rsp:Arguments", _NS)]
        command = line.attrib.get("CommandId") or str(uuid.uuid4()).upper()
        if shell.pool is None:
            name = _text(line, "rsp:Command").strip('"')
            shell.waiting[command] = self.program(name, " ".join(given).split()).encode()
            shell.ended.add(command)
        else:
            ServerPipeline(shell.pool, uuid.UUID(command))
            self._feed(shell, "".join(given), command)
        return (
            f"<rsp:CommandResponse><rsp:CommandId>{command}</rsp:CommandId></rsp:CommandResponse>"
        )

    def _on_send(self, _: str, shell: Shell, body: ElementTree.Element) -> str:
        stream = body.find("rsp:Send/rsp:Stream", _NS)
        assert stream is not None
        assert stream.attrib["Name"] == "stdin"
        self._feed(shell, stream.text or "", stream.attrib.get("CommandId"))
        return "<rsp:SendResponse/>"

    def _on_receive(self, _: str, shell: Shell, body: ElementTree.Element) -> str:
        wanted = body.find("rsp:Receive/rsp:DesiredStream", _NS)
        assert wanted is not None
        command = wanted.attrib.get("CommandId", "")
        data = shell.waiting.pop(command, b"")
        if not data:
            raise _Fault(
                _TIMED_OUT,
                "The WS-Management service cannot complete the operation "
                "within the time specified in OperationTimeout.",
            )
        which = f' CommandId="{command}"' if command else ""
        coded = base64.b64encode(data).decode()
        text = f'<rsp:Stream Name="stdout"{which}>{coded}</rsp:Stream>'
        if command in shell.ended:
            state = f"{_NS['rsp']}/CommandState/Done"
            text += f'<rsp:CommandState{which} State="{state}"><rsp:ExitCode>0</rsp:ExitCode>'
            text += "</rsp:CommandState>"
        return f"<rsp:ReceiveResponse>{text}</rsp:ReceiveResponse>"

    def _on_signal(self, _: str, shell: Shell, body: ElementTree.Element) -> str:
        asked = body.find("rsp:Signal", _NS)
        assert asked is not None
        assert _TERMINATE.fullmatch(_text(asked, "rsp:Code"))
        if shell.pool is not None:
            shell.pool.pipeline_table[uuid.UUID(asked.attrib["CommandId"])].close()
        return "<rsp:SignalResponse/>"

    def _on_delete(self, shell_id: str, shell: Shell, body: ElementTree.Element) -> str:
        del self.shells[shell_id]
        return ""

    def _feed(self, shell: Shell, coded: str, command: str | None) -> None:
        """Give what was sent to the session, run what is whole, and keep what it says."""
        pool = shell.pool
        assert pool is not None
        target = uuid.UUID(command) if command else None
        pool.receive_data(
            PSRPPayload(base64.b64decode(coded, validate=True), StreamType.default, target)
        )
        while event := pool.next_event():
            if isinstance(event, CreatePipelineEvent):
                self._create(shell, pool.pipeline_table[event.pipeline_id], event.pipeline)
        while payload := pool.data_to_send():
            place = str(payload.pipeline_id).upper() if payload.pipeline_id else ""
            shell.waiting[place] = shell.waiting.get(place, b"") + payload.data

    def _create(self, shell: Shell, pipeline: Any, asked: Any) -> None:
        assert not any(one.is_script for one in asked.commands), "the imitation runs no scripts"
        steps = [
            Step(str(one.command_text), [(name and str(name), v) for name, v in one.parameters])
            for one in asked.commands
        ]
        self.pipelines.append(steps)
        pipeline.start()
        try:
            for one in self.run(shell, steps):
                pipeline.write_output(PSCustomObject(**one) if isinstance(one, dict) else one)
        except Failed as failed:
            stops = any(("ErrorAction", "Stop") in one.parameters for one in steps)
            if stops:
                pipeline._change_state(PSInvocationState.Failed, error=failed.record())
            else:
                record = failed.record()
                pipeline.write_error(
                    record.Exception, record.CategoryInfo, None, record.FullyQualifiedErrorId
                )
                pipeline.complete()
        else:
            pipeline.complete()
        shell.ended.add(str(pipeline.pipeline_id).upper())


def _text(parent: ElementTree.Element, path: str) -> str:
    found = parent.find(path, _NS)
    assert found is not None, path
    return found.text or ""


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    spaces = " ".join(f'xmlns:{name}="{uri}"' for name, uri in _NS.items())
    return (
        f"<s:Envelope {spaces}><s:Header><a:Action>http://schemas.xmlsoap.org/{action}</a:Action>"
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID>"
        f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo></s:Header>"
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _fault(fault: _Fault) -> str:
    said = escape(str(fault))
    return (
        "<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:InternalError"
        f'</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-US">{said}</s:Text>'
        f'</s:Reason><s:Detail><f:WSManFault Code="{fault.code}" Machine="web1"><f:Message>'
        f"{said}</f:Message></f:WSManFault></s:Detail></s:Fault>"
    )
