"""Which lines of main.cf and master.cf are changed, and what mail clients then see."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import InvalidRequest
from certrail.model import Bundle
from certrail.remote.local import LocalHost
from certrail.servers.postfix import PostfixSettings, PostfixTarget
from certrail.servers.registry import open_target, site_of
from certrail.servers.splice import replacements, take_back
from certrail.servers.target import Wanted
from tests.support.mail import NAME, Postfix
from tests.support.nginx import TestCa
from tests.support.process import binary, free_port

LAYOUTS: dict[str, tuple[str, ...]] = {
    "a chain file": ("smtpd_tls_chain_files = @dir@/old.pem",),
    "a pair": (
        "smtpd_tls_cert_file=@dir@/old.pem",
        "smtpd_tls_key_file=@dir@/old.pem",
    ),
    "a certificate with its key": ("smtpd_tls_cert_file   =   @dir@/old.pem   ",),
    "the pair for elliptic curves": (
        "smtpd_tls_eccert_file = @dir@/old.pem",
        "smtpd_tls_eckey_file = $smtpd_tls_eccert_file",
    ),
    "continued with a comment in between": (
        "smtpd_tls_chain_files =",
        "# the one from last year",
        "",
        "   @dir@/old.pem",
    ),
    "set twice": ("smtpd_tls_chain_files = /nowhere", "smtpd_tls_chain_files = @dir@/old.pem"),
    "through a parameter": ("certs = @dir@", "smtpd_tls_chain_files = $certs/old.pem"),
}


def target(postfix: Postfix, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**postfix.server, "site": NAME, **settings})


def install(postfix: Postfix, bundle: Bundle, **settings: object) -> str:
    """Stage and activate *bundle*; return what was done, for people."""
    opened = target(postfix, **settings)
    return opened.activate(opened.stage(site_of({"site": NAME, **settings}), bundle, None))


@pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(tmp_path: Path, layout: str, line_ending: str) -> None:
    """Twice is once, and undone is byte for byte as before."""
    old = TestCa().bundle(NAME)
    assert old.key is not None
    (tmp_path / "old.pem").write_bytes(old.key.reveal() + old.chain.text.encode())
    main = tmp_path / "main.cf"
    lines = ["# \udcff", "compatibility_level = 3.6", *LAYOUTS[layout]]
    text = line_ending.join(lines).replace("@dir@", str(tmp_path))
    before = text.encode("utf-8", "surrogateescape")
    main.write_bytes(before)
    (tmp_path / "master.cf").write_text("25 inet n - n - - smtpd\n")
    opened = PostfixTarget(
        LocalHost("here"), PostfixSettings(config=str(tmp_path), directory=f"{tmp_path}/certrail")
    )
    site, wanted = site_of({"site": NAME}), Wanted("ECDSA")
    survey = opened.survey(site, wanted)
    assert survey.configured == (old.chain.fingerprint,)

    after = survey.plan.after[str(main)]
    main.write_bytes(after)

    assert not opened.survey(site, wanted).plan.after
    live = f"{tmp_path}/certrail/{NAME}/live/combined.pem"
    argv = ["postconf", "-c", str(tmp_path), "-x", "-h", "smtpd_tls_chain_files"]
    argv += ["smtpd_tls_cert_file", "smtpd_tls_eccert_file"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert set(said.split()) == {live}
    made = replacements(before, survey.splices[str(main)])
    assert take_back(after, made, str(main)) == before


def test_mail_clients_see_the_new_certificate() -> None:
    """Installed while mail comes in, and put back when it is taken back."""
    with Postfix.started(LAYOUTS["a pair"]) as postfix:
        before = postfix.main.read_bytes(), postfix.master.read_bytes()
        opened, site = target(postfix), site_of({"site": NAME})
        bundle = postfix.ca.bundle(NAME)

        staged = opened.stage(site, bundle, postfix.old.chain.fingerprint)
        line = opened.activate(staged)

        assert "Postfix: 1 file, 2 directives replaced" in line
        assert postfix.served() == bundle.chain.fingerprint == opened.serving(site)
        opened.restore(staged)
        assert (postfix.main.read_bytes(), postfix.master.read_bytes()) == before
        assert postfix.served() == postfix.old.chain.fingerprint


def test_submission_has_a_certificate_of_its_own() -> None:
    """What is set with -o counts for one service, and the other keeps what it has."""
    port = free_port()
    service = (
        f"127.0.0.1:{port} inet n - n - - smtpd",
        "  -o syslog_name=postfix/submission",
        "  -o { smtpd_tls_chain_files = @dir@/old.pem }",
    )
    with Postfix.started(more=service) as postfix:
        before = postfix.main.read_bytes(), postfix.master.read_bytes()
        bundle = postfix.ca.bundle(NAME)
        opened = target(postfix, listen=port)
        site = site_of({"site": NAME, "listen": port})

        staged = opened.stage(site, bundle, None)
        opened.activate(staged)

        assert postfix.served(port) == bundle.chain.fingerprint
        assert postfix.served() == postfix.old.chain.fingerprint
        assert {one.settings["listen"] for one in opened.sites()} == {"", f"127.0.0.1:{port}"}
        opened.restore(staged)
        assert (postfix.main.read_bytes(), postfix.master.read_bytes()) == before


def test_starttls_is_switched_on_when_the_endpoint_says_so() -> None:
    """A server without a certificate is not changed unasked."""
    with Postfix.started(()) as postfix:
        before = postfix.main.read_bytes()
        bundle = postfix.ca.bundle(NAME)
        with pytest.raises(InvalidRequest, match="names no certificate") as caught:
            install(postfix, bundle)
        assert "smtpd_tls_chain_files = " in caught.value.remedy
        assert postfix.main.read_bytes() == before

        install(postfix, bundle, enable_tls=True)

        assert postfix.served() == bundle.chain.fingerprint
        assert postfix.main.read_bytes().startswith(before)


def test_two_kinds_of_key_are_told_apart() -> None:
    """Of an RSA and an ECDSA certificate the one of the new kind is replaced."""
    ca = TestCa()
    rsa = ca.bundle(NAME, rsa_key=True)
    tls = ("smtpd_tls_chain_files = @dir@/rsa.pem, @dir@/old.pem",)
    with Postfix.started(tls, ca=ca) as postfix:
        assert rsa.key is not None
        file = postfix.folder / "rsa.pem"
        file.write_bytes(rsa.key.reveal() + rsa.chain.text.encode())
        before = postfix.main.read_text()

        install(postfix, ca.bundle(NAME))

        live = f"{postfix.folder}/certrail/postfix/{NAME}/live/combined.pem"
        expected = before.replace(f"{postfix.folder}/old.pem", live)
        assert postfix.main.read_text() == expected
        assert postfix.accepts_configuration()


def test_a_name_in_a_compiled_table_is_refused() -> None:
    """The table has to be compiled by its owner, and would win over what we wrote."""
    with Postfix.started() as postfix:
        table = postfix.folder / "sni"
        table.write_text(f"{NAME} {postfix.folder}/old.pem\n")
        subprocess.run([binary("postmap", "postfix"), "-F", f"hash:{table}"], check=True)
        with postfix.main.open("a") as file:
            file.write(f"tls_server_sni_maps = hash:{table}\n")

        with pytest.raises(InvalidRequest, match="compiled table") as caught:
            install(postfix, postfix.ca.bundle(NAME))

        assert f"postmap -F hash:{table}" in caught.value.remedy
        assert not (postfix.folder / "certrail").exists()
