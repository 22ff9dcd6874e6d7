"""What an endpoint's ``server`` mapping says about the form of a delivery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from certrail.delivery.names import checked_template
from certrail.errors import InvalidRequest
from certrail.model import Bundle
from certrail.x509.export import Format, Part, export, load

OpenReference = Callable[[str], str]
"""Returns the secret that a reference (``env:NAME``, ``file:/path``, ``sealed:…``) stands for."""

_REFERENCES = ("env:", "file:", "sealed:")
_FILES = {
    Part.CERT: "cert.pem",
    Part.CHAIN: "chain.pem",
    Part.FULLCHAIN: "fullchain.pem",
    Part.KEY: "privkey.pem",
    Part.BUNDLE: "{name}.pem",
    Part.STORE: "{name}.p12",
}


class ServerSettings(BaseModel):
    """What an endpoint says about the object that it is delivered as."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: ClassVar[str] = "delivery"

    site: str = Field("", description="Name of the object; default: that of the location.")

    @classmethod
    def parse(cls, server: Mapping[str, object]) -> Self:
        """Read the ``server`` mapping of an endpoint.

        Raises:
            InvalidRequest: an unknown field or a bad value; says which.
        """
        try:
            return cls.model_validate(dict(server))
        except ValidationError as exc:
            what = "; ".join(
                ".".join(map(str, one["loc"]))
                + (": " if one["loc"] else "")
                + one["msg"].removeprefix("Value error, ")
                for one in exc.errors(include_url=False, include_input=False)
            )
        # Outside the handler: pydantic's own error quotes what may be a password.
        raise InvalidRequest(
            f"server settings of {cls.what}: {what}",
            remedy=f"Known fields: {', '.join(cls.model_fields)}.",
        )


class ContentSettings(ServerSettings):
    """In which form the certificate is stored."""

    formats: ClassVar[frozenset[Format]] = frozenset(Format)

    format: Format = Field(Format.PEM, description="Form of certificate and key.")
    password: str = Field(
        "",
        repr=False,
        description="Reference to the password of a container: env:NAME, file:/path or sealed:….",
    )
    alias: str = Field("", description="Name of the entry in a container; default `certificate`.")

    @field_validator("format")
    @classmethod
    def _is_possible(cls, value: Format) -> Format:
        if value not in cls.formats:
            known = ", ".join(sorted(cls.formats))
            raise ValueError(f"{value} cannot be stored there as one; possible: {known}")
        return value

    @field_validator("password")
    @classmethod
    def _is_reference(cls, value: str) -> str:
        if value and not value.startswith(_REFERENCES):
            # An endpoint's settings are shown to everybody and are no place for a secret.
            raise ValueError("must be a reference: env:NAME, file:/path or sealed:…")
        return value

    @model_validator(mode="after")
    def _has_password(self) -> Self:
        if self.format.has_password and not self.password:
            raise ValueError(f"{self.format} needs `password`")
        if self.password and not self.format.has_password:
            raise ValueError(f"{self.format} has no password")
        return self

    def export(self, bundle: Bundle, open_reference: OpenReference) -> dict[Part, bytes]:
        """Return *bundle* in the form wanted."""
        return export(bundle, self.format, password=self._open(open_reference), alias=self.alias)

    def load(self, contents: Mapping[Part, bytes], open_reference: OpenReference) -> Bundle:
        """Read what :meth:`export` wrote.

        Raises:
            UnexpectedReply: it is not whole or cannot be read.
            AuthenticationFailed: a container has another password.
        """
        return load(contents, self.format, password=self._open(open_reference))

    def _open(self, open_reference: OpenReference) -> str:
        return open_reference(self.password) if self.password else ""


class NamedParts(ContentSettings):
    """Settings of a place where every part has a name of its own."""

    files: dict[Part, str] = Field(
        default_factory=dict,
        description="Names of the parts (cert, chain, fullchain, key, bundle, store), of files "
        "or fields; `{name}` stands for the first host name. Parts left out keep their usual "
        "name; a part named '' is not written.",
    )

    @field_validator("files")
    @classmethod
    def _names_are_plain(cls, value: dict[Part, str], info: ValidationInfo) -> dict[Part, str]:
        form = info.data.get("format")
        for part, template in value.items():
            if form is not None and part not in form.parts:
                parts = ", ".join(form.parts)
                raise ValueError(f"{form} has no part {part}; it has: {parts}")
            if template:
                checked_template(template)
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = list(self.templates().values())
        if len(set(names)) != len(names):
            raise ValueError("two parts have the same name")
        if not set(self.templates()) & {Part.CERT, Part.FULLCHAIN, Part.BUNDLE, Part.STORE}:
            raise ValueError("the certificate itself has to be written")
        return self

    def templates(self) -> dict[Part, str]:
        """Return the name, still with ``{name}``, of every part that is written."""
        names = {part: self.files.get(part, self.usual(part)) for part in self.format.parts}
        return {part: name for part, name in names.items() if name}

    def usual(self, part: Part) -> str:
        """Return the name of *part* if none is given."""
        name = _FILES[part]
        extension = {Format.DER: ".der", Format.JKS: ".jks"}.get(self.format)
        return name.rpartition(".")[0] + extension if extension else name


class CommandFields(BaseModel):
    """What runs on the host once the files are there."""

    after: tuple[str, ...] = Field(
        (),
        description="Command, as a list of words, that runs on the host after a delivery. It gets "
        "a JSON description on standard input; any exit code but 0 fails the step.",
    )
    after_timeout: float = Field(60.0, gt=0, le=3600, description="Seconds it may take.")


class DirectorySettings(CommandFields, NamedParts):
    """A directory on a host."""

    what: ClassVar[str] = "directory"

    kind: Literal["directory"] = "directory"
    path: str = Field(description="The directory, absolute.")
    mode: int = Field(0o644, description="Permission bits of files without a key, octal.")
    key_mode: int = Field(0o600, description="Permission bits of files with a key, octal.")
    owner: str = Field("", description="Owner of the files; default: the account used.")
    group: str = Field("", description="Group of the files; default: the account's.")

    @field_validator("mode", "key_mode", mode="before")
    @classmethod
    def _octal(cls, value: object) -> object:
        # `0640`, `640` and `"0o640"` all mean what chmod means by them.
        try:
            return int(str(value), 8)
        except ValueError:
            raise ValueError("must be octal digits, such as 0640") from None

    @field_validator("mode", "key_mode")
    @classmethod
    def _is_sensible(cls, value: int, info: ValidationInfo) -> int:
        if value & ~0o666 or value & 0o400 == 0:
            raise ValueError("must be readable by the owner and have no bits but read and write")
        if info.field_name == "key_mode" and value & 0o007:
            raise ValueError("a private key may not be open to everybody")
        return value

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        parts = value.split("/")
        if parts[0] or not all(parts[1:]) or {".", ".."} & set(parts) or not value.isprintable():
            raise ValueError("must be an absolute path without .. and without a trailing slash")
        return value
