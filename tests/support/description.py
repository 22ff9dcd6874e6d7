"""An API's description (OpenAPI 3.1), to hold requests and replies of an imitation against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker


class Description:
    """The operations of one description."""

    def __init__(self, path: Path) -> None:
        self._document: dict[str, Any] = yaml.safe_load(path.read_text())
        self._operations: list[tuple[str, re.Pattern[str], dict[str, Any]]] = []
        for template, methods in self._document["paths"].items():
            pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", template))
            for method, operation in methods.items():
                self._operations.append((method.upper(), pattern, operation))

    def wrong_request(self, method: str, path: str, query: Mapping[str, str], body: Any) -> str:
        """Say what a request has that the description has not; nothing if that is nothing."""
        operation = self._operation(method, path)
        if operation is None:
            return f"{method} {path} is not described"
        parameters = [self._resolved(one) for one in operation.get("parameters", [])]
        known = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
        for name, text in query.items():
            if name not in known:
                return f"there is no parameter {name}"
            number = known[name]["type"] == "integer" and re.fullmatch(r"-?\d+", text)
            if problem := self._problem(known[name], int(text) if number else text):
                return f"{name}: {problem}"
        if "requestBody" not in operation:
            return "there is no body" if body is not None else ""
        return self._problem(_json(operation["requestBody"]), body)

    def wrong_reply(self, method: str, path: str, status: int, body: Any) -> str:
        """Say what a reply has that the description has not; nothing if that is nothing."""
        operation = self._operation(method, path)
        if operation is None:
            return ""
        replies = operation["responses"]
        reply = self._resolved(replies.get(str(status)) or replies["default"])
        if str(status) not in replies and status < 400:
            return f"status {status} is not described"
        if "content" not in reply:
            return "there is no body" if body is not None else ""
        if "text/plain" in reply["content"]:
            return "" if isinstance(body, str) else "it is a text"
        return self._problem(_json(reply), body)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        found = (o for m, pattern, o in self._operations if m == method and pattern.fullmatch(path))
        return next(found, None)

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in part:
            return part
        found: dict[str, Any] = self._document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return found

    def _problem(self, schema: dict[str, Any], value: Any) -> str:
        whole = {"allOf": [schema], "components": self._document["components"]}
        errors = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(value)
        return next((f"{error.json_path}: {error.message}" for error in errors), "")


def _json(part: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = part["content"]["application/json"]["schema"]
    return schema
