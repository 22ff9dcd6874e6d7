"""What can be generated: tables of settings, the list of connectors, the command line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

import blocks
from blocks._base import ConnectorBlock
from blocks.delivery.azure_keyvault import KeyVaultSettings
from certrail import maintenance
from certrail.configuration import endpoint, profile
from certrail.connectors import InstallTarget
from certrail.delivery.fields import FieldSettings
from certrail.delivery.objects import ObjectSettings
from certrail.delivery.settings import DirectorySettings
from certrail.errors import InvalidRequest
from certrail.notify.settings import Digest, NotificationSettings, Template
from certrail.remote.local import LocalHost
from certrail.servers import sudoers
from certrail.servers.apache import ApacheSettings
from certrail.servers.caddy import CaddySettings
from certrail.servers.command import CommandSettings
from certrail.servers.dovecot import DovecotSettings
from certrail.servers.exim import EximSettings
from certrail.servers.haproxy import HaproxySettings
from certrail.servers.lighttpd import LighttpdSettings
from certrail.servers.mariadb import MariadbSettings
from certrail.servers.nginx import NginxSettings
from certrail.servers.postfix import PostfixSettings
from certrail.servers.postgresql import PostgresqlSettings
from certrail.servers.tomcat import TomcatSettings
from certrail.settings import Settings
from deployments.docs.commands import command_line

MODELS: dict[str, type[BaseModel]] = {
    "profile": profile.ProfileConfig,
    "validation": profile.Validation,
    "key": profile.Key,
    "renew": profile.Renew,
    "maintenance_window": maintenance.MaintenanceWindow,
    "blackout": maintenance.Blackout,
    "approval": profile.Approval,
    "notifications": profile.Notifications,
    "endpoint": endpoint.EndpointConfig,
    "also_on": endpoint.FurtherPlace,
    "account_notifications": NotificationSettings,
    "digest": Digest,
    "template": Template,
}
SERVERS: dict[str, type[BaseModel]] = {
    "apache": ApacheSettings,
    "caddy": CaddySettings,
    "command": CommandSettings,
    "dovecot": DovecotSettings,
    "exim": EximSettings,
    "haproxy": HaproxySettings,
    "lighttpd": LighttpdSettings,
    "mariadb": MariadbSettings,
    "nginx": NginxSettings,
    "postfix": PostfixSettings,
    "postgresql": PostgresqlSettings,
    "tomcat": TomcatSettings,
}
DELIVERIES: dict[str, type[BaseModel]] = {
    "directory": DirectorySettings,
    "fields": FieldSettings,
    "key-vault": KeyVaultSettings,
    "object": ObjectSettings,
}
# Fields that are written by the program, not by people.
_INTERNAL = frozenset({"trust_pem"})
_NUMBERS = {"integer": "whole number", "number": "number"}


def connectors() -> dict[str, type[ConnectorBlock]]:
    """Return every connector by its type."""
    assert blocks.__all__
    found = {block.get_block_type_slug(): block for block in ConnectorBlock.vendors()}
    return {slug: found[slug] for slug in sorted(found)}


def _model(what: str) -> str:
    return table(MODELS[what])


def _server(what: str) -> str:
    return table(SERVERS[what])


def _delivery(what: str) -> str:
    return table(DELIVERIES[what])


def _connector(what: str) -> str:
    block = connectors().get(what)
    if block is None:
        raise InvalidRequest(f"there is no connector type {what}")
    text = (block.__doc__ or "").strip()
    told = "\n".join(line.strip() for line in text.splitlines()).replace("``", "`")
    article = "an" if block.kind[0] in "aeiou" else "a"
    able = "".join(f"\n\n{capabilities(one)}" for one in targets_of(block))
    return f"Type `{what}`, {article} {block.kind}.\n\n{told}\n\n{table(block)}{able}"


def targets_of(block: type[ConnectorBlock]) -> list[type[InstallTarget]]:
    """Return what an install target's block opens: the classes for it, the plainest first."""
    found = vars(sys.modules[block.__module__]).values()
    classes = [
        one
        for one in found
        if isinstance(one, type)
        and issubclass(one, InstallTarget)
        and not inspect.isabstract(one)
        and one.__module__.startswith(block.__module__)
    ]
    return sorted(classes, key=lambda one: len(one.__mro__))


def capabilities(target: type[InstallTarget]) -> str:
    """Return a table of what *target* can and cannot do."""
    traits = target.traits
    keys = ", ".join(f"`{one}`" for one in sorted(traits.key_algorithms))
    rows = {
        "private key": "made on it and never given out"
        if traits.key_on_device
        else "made by Certrail, sealed, and sent to it",
        "a change": "happens as a whole or not at all, by its own means"
        if traits.transactional
        else "takes several calls; what fails in between is put back",
        "the certificate before": traits.restores_by,
        "saving": "is needed after a change, and done"
        if traits.needs_save
        else "is not needed: a change stays",
        "changes at a time": f"{traits.concurrency}; requests wait for each other"
        if traits.concurrency == 1
        else str(traits.concurrency),
        "keys": keys,
        "longest name": f"{traits.longest_name} characters"
        if traits.longest_name
        else "no limit known",
    }
    if traits.settles_within:
        minutes = int(traits.settles_within.total_seconds() // 60)
        rows["seen by clients"] = f"within {minutes} minutes; as long is waited"
    if not traits.serves:
        rows["tested"] = (
            "where the endpoint has an `address`, by connecting to it; else it is read back"
        )
    first = (target.__doc__ or "").strip().splitlines()[0].rstrip(".")
    lines = [f"| {first} | |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {told} |" for name, told in rows.items())])


def _connector_list(_: str) -> str:
    lines = ["| type | kind | what it does |", "| --- | --- | --- |"]
    for slug, block in connectors().items():
        first = (block.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| [`{slug}`]({slug}.md) | {block.kind} | {first} |")
    return "\n".join(lines)


def _settings(_: str) -> str:
    told = _attributes(Settings.__doc__ or "")
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() or field.default_factory else field.default
        shown = "" if default in ("", None) else f"`{_yaml(default)}`"
        lines.append(f"| `CERTRAIL_{name.upper()}` | {shown} | {_sentence(told[name])} |")
    return "\n".join(lines)


def _sudoers(account: str) -> str:
    told = []
    for server in (
        {"kind": "nginx"},
        {"kind": "apache", "config": "/etc/apache2/apache2.conf"},
        {"kind": "haproxy", "reload": "systemd"},
        {"kind": "postfix"},
        {"kind": "dovecot"},
        {"kind": "lighttpd"},
        {
            "kind": "exim",
            "config": "/var/lib/exim4/config.autogenerated",
            "reload": "systemd",
            "binary": "exim4",
            "directory": "/etc/exim4/certrail",
            "key_owner": "Debian-exim",
        },
        {"kind": "caddy", "key_owner": "caddy"},
        {
            "kind": "postgresql",
            "config": "/etc/postgresql/15/main/postgresql.conf",
            "binary": "/usr/lib/postgresql/15/bin/postgres",
            "reload": "systemd",
            "key_owner": "postgres",
        },
        {"kind": "mariadb", "config": "/etc/mysql/my.cnf", "key_owner": "mysql"},
        {
            "kind": "tomcat",
            "config": "/etc/tomcat10/server.xml",
            "base": "/var/lib/tomcat10",
            "key_owner": "tomcat",
        },
    ):
        needed = sudoers.commands(server, LocalHost("here"))
        told += [f"# {server['kind']}", *sudoers.lines(account, needed)]
    return "\n".join(["```sudoers", *told, "```"])


KINDS: dict[str, Callable[[str], str]] = {
    "connector": _connector,
    "connectors": _connector_list,
    "delivery": _delivery,
    "model": _model,
    "server": _server,
    "sudoers": _sudoers,
    "settings": _settings,
    "commands": command_line,
}


def table(model: type[BaseModel]) -> str:
    """Return the fields of *model* as a table: name, value, default, meaning."""
    schema = model.model_json_schema(mode="validation")
    shared: dict[str, Any] = {**schema.get("$defs", {}), **schema.get("definitions", {})}
    required = set(schema.get("required", ()))
    lines = ["| setting | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name in model.model_fields:
        if name in _INTERNAL:
            continue
        field = schema["properties"][name]
        default = "**required**" if name in required else _default(name, field.get("default"))
        meaning = str(model.model_fields[name].description or "")
        meaning = meaning.replace("|", "\\|").replace("\n", " ")
        value = "permission bits" if _is_mode(name) else _value(field, shared)
        lines.append(f"| `{name}` | {value} | {default} | {meaning} |")
    return "\n".join(lines)


def _value(field: dict[str, Any], shared: dict[str, Any]) -> str:
    """Say in words what may stand there."""
    if "$ref" in field:
        return _value(shared[field["$ref"].rpartition("/")[2]], shared)
    for several in ("anyOf", "allOf", "oneOf"):
        if several in field:
            kinds = [_value(one, shared) for one in field[several] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    match field.get("type"):
        case "array":
            return f"list of {_value(field.get('items', {'type': 'string'}), shared)}"
        case "object":
            return "mapping"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return _NUMBERS[kind] + _range(field)
        case _:
            kind = field.get("format", "")
            return {"password": "secret", "time": "time `HH:MM`"}.get(kind, "text")


def _range(field: dict[str, Any]) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f", {low} to {high}" if "minimum" in field else f" between {low} and {high}"
    return f", at least {low}" if low is not None else ""


def _is_mode(name: str) -> bool:
    return name in ("mode", "key_mode")


def _default(name: str, value: Any) -> str:
    if _is_mode(name) and isinstance(value, int):
        return f"`{value:04o}`"
    return "" if value in (None, "", [], {}) or isinstance(value, dict) else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _sentence(text: str) -> str:
    return (text[0].upper() + text[1:]).replace("``", "`")


def _attributes(docstring: str) -> dict[str, str]:
    """Read the "Attributes" of a docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Attributes:")[2].splitlines():
        text = line.strip()
        if ": " in text and not line.startswith(" " * 12):
            name, _, meaning = text.partition(": ")
            found[name] = meaning
        elif name and text:
            found[name] += f" {text}"
    return found
