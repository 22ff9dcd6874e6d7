"""The commands of PowerShell that an imitation of Windows knows, with their parameters.

Modules WebAdministration and PKI; Microsoft.PowerShell.Management, .Core and .Utility. Ids of
errors that no page gives are like the real ones, not theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psrpcore.types import ErrorCategory, PSSecureString

from tests.support.winrm_service import Failed, Step

COMMANDS = "Microsoft.PowerShell.Commands"

STRING, STRINGS, SWITCH, BYTES, SECRET = "String", "String[]", "SwitchParameter", "Byte[]", "Secure"
NUMBER = "Int32"
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "Import-Module": {"Name": STRING},
    "Get-WebBinding": {"Name": STRING, "Protocol": STRING, "HostHeader": STRING},
    "Get-Item": {"LiteralPath": STRING, "Path": STRING},
    "Get-ChildItem": {"LiteralPath": STRING, "Path": STRING},
    "Get-ItemProperty": {"LiteralPath": STRING, "Path": STRING, "Name": STRING},
    "Get-Content": {"LiteralPath": STRING, "Path": STRING},
    "Get-Variable": {"Name": STRING, "ValueOnly": SWITCH},
    "Test-Path": {"LiteralPath": STRING, "Path": STRING},
    "Remove-Item": {"LiteralPath": STRING, "Force": SWITCH, "DeleteKey": SWITCH},
    "Set-Content": {"LiteralPath": STRING, "Value": BYTES, "Encoding": STRING},
    "Import-PfxCertificate": {
        "FilePath": STRING,
        "CertStoreLocation": STRING,
        "Password": SECRET,
        "Exportable": SWITCH,
    },
    "Import-Certificate": {"FilePath": STRING, "CertStoreLocation": STRING},
    "Select-Object": {"Property": STRINGS},
    "Where-Object": {"Property": STRING, "Value": STRING, "EQ": SWITCH},
    "Out-String": {"Width": NUMBER},
    "ForEach-Object": {"MemberName": STRING, "ArgumentList": STRINGS},
}


def bound(step: Step) -> dict[str, Any]:
    """Return the parameters of a command as the binder of PowerShell takes them."""
    if step.name not in PARAMETERS:
        raise Failed(
            f"The term '{step.name}' is not recognized as the name of a cmdlet, function, script "
            "file, or operable program.",
            "CommandNotFoundException",
            ErrorCategory.ObjectNotFound,
        )
    known = PARAMETERS[step.name]
    given: dict[str, Any] = {}
    for name, value in step.parameters:
        if name == "ErrorAction":
            assert value in ("Stop", "Continue", "SilentlyContinue")
            continue
        if name is None or name not in known:
            raise Failed(
                f"A parameter cannot be found that matches parameter name '{name}'.",
                f"NamedParameterNotFound,{step.name}",
                ErrorCategory.InvalidArgument,
            )
        kind = known[name]
        fits = {
            STRING: isinstance(value, str),
            STRINGS: isinstance(value, list) and all(isinstance(one, str) for one in value),
            SWITCH: isinstance(value, bool),
            NUMBER: isinstance(value, int) and not isinstance(value, bool),
            BYTES: isinstance(value, bytes),
            SECRET: isinstance(value, PSSecureString),
        }[kind]
        if not fits:
            raise Failed(
                f"Cannot bind parameter '{name}'. Cannot convert the value to \"{kind}\".",
                f"CannotConvertArgumentNoMessage,{step.name}",
                ErrorCategory.InvalidArgument,
            )
        given[name] = value
    return given


def not_found(path: str, command: str) -> Failed:
    """Return what a command says of a path that is not there."""
    return Failed(
        f"Cannot find path '{path}' because it does not exist.",
        f"PathNotFound,{COMMANDS}.{command}",
        ErrorCategory.ObjectNotFound,
        "System.Management.Automation.ItemNotFoundException",
    )
