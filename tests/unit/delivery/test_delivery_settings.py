"""What an endpoint may say about a delivery, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.delivery.names import checked_template, filled
from certrail.delivery.settings import DirectorySettings
from certrail.errors import InvalidRequest
from certrail.model import Site
from certrail.x509.export import Part


def _parse(**fields: Any) -> DirectorySettings:
    return DirectorySettings.parse({"kind": "directory", "path": "/etc/ssl/shop", **fields})


def test_little_has_to_be_said() -> None:
    """A directory is enough: everything else has a usual value."""
    settings = _parse()

    assert settings.templates() == {
        Part.KEY: "privkey.pem",
        Part.CERT: "cert.pem",
        Part.CHAIN: "chain.pem",
        Part.FULLCHAIN: "fullchain.pem",
    }
    assert (settings.mode, settings.key_mode) == (0o644, 0o600)


@pytest.mark.parametrize("text", ["0640", 640, "640", "0o640"])
def test_modes_are_octal_however_written(text: object) -> None:
    """The configuration knows decimal numbers only, and nobody means 640 in decimal."""
    assert _parse(key_mode=text).key_mode == 0o640


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"paht": "/x"}, "paht"),
        ({"path": "etc/ssl"}, "absolute"),
        ({"path": "/etc/../ssl"}, "absolute"),
        ({"path": "/etc/ssl/"}, "absolute"),
        ({"path": "/"}, "absolute"),
        ({"format": "pfx"}, "format"),
        ({"format": "pkcs12"}, "needs `password`"),
        ({"password": "env:P"}, "has no password"),
        ({"key_mode": "0644"}, "everybody"),
        ({"mode": "0755"}, "read and write"),
        ({"mode": "0200"}, "readable"),
        ({"mode": "rw"}, "octal"),
        ({"files": {"store": "x.p12"}}, "no part store"),
        ({"files": {"key": "../key.pem"}}, "plain name"),
        ({"files": {"key": "a/b"}}, "plain name"),
        ({"files": {"key": ".hidden"}}, "plain name"),
        ({"files": {"key": "{serial}.pem"}}, "plain name"),
        ({"files": {"key": "a\nb"}}, "plain name"),
        ({"files": {"key": "cert.pem"}}, "same name"),
        ({"files": {"cert": "", "fullchain": ""}}, "certificate itself"),
        ({"after": "systemctl reload x"}, "after"),
        ({"after_timeout": 0}, "after_timeout"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], says: str) -> None:
    """A mistake is told before a certificate is ordered for it."""
    with pytest.raises(InvalidRequest, match=says) as caught:
        _parse(**fields)

    assert "Known fields" in caught.value.remedy


def test_a_plain_password_is_refused_and_not_repeated() -> None:
    """An endpoint's settings are seen by everybody who may see the endpoint."""
    with pytest.raises(InvalidRequest, match="must be a reference") as caught:
        _parse(format="pkcs12", password="hunter2hunter2")

    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_part_can_be_left_out() -> None:
    """Some servers must not find a key in the directory."""
    settings = _parse(files={"key": "", "chain": "", "cert": "{name}.crt"})

    assert settings.templates() == {Part.CERT: "{name}.crt", Part.FULLCHAIN: "fullchain.pem"}


@given(name=st.text(max_size=300), template=st.text(alphabet="ab./-_{}name\0 \n", max_size=20))
def test_no_name_leaves_its_directory(name: str, template: str) -> None:
    """File names are partly made of what others chose."""
    try:
        checked_template(template)
    except ValueError:
        return
    made = filled(template, Site(id="x", names=(name,)))

    assert "/" not in made
    assert made not in ("", ".", "..")
    assert made.isascii()
    assert made.isprintable()
