"""An edit changes one server block's certificate and not one other byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.servers.change import Change
from certrail.servers.nginx.config import Configuration, interpret
from certrail.servers.nginx.edit import Edit, plan_edit
from certrail.servers.nginx.match import Matcher
from certrail.servers.splice import replacements, take_back
from tests.support.nginx import TestCa, store
from tests.unit.servers.layouts import DEBIAN, HARD, LUA, RED_HAT, http, read

NEW = Change("/n/live/fullchain.pem", "/n/live/privkey.pem", "ECDSA")
LINES = "ssl_certificate /n/live/fullchain.pem; ssl_certificate_key /n/live/privkey.pem;"
CA = TestCa()


def edited(
    directory: Path, files: dict[str, str | bytes] | str, site: str, wanted: Change = NEW
) -> tuple[Configuration, Edit]:
    configuration = read(directory, files)
    return configuration, plan_edit(configuration, Matcher(configuration).match(site), wanted)


def after(directory: Path, servers: str, site: str, wanted: Change = NEW) -> str:
    """Return the edited text between the lines that ``http()`` puts around *servers*."""
    configuration, edit = edited(directory, servers, site, wanted)
    [content] = edit.changed(configuration).values()
    text = content.decode()
    head, tail = http("@").split("@")
    assert text.startswith(head)
    assert text.endswith(tail)
    return text[len(head) : -len(tail)]


def twice_is_once(directory: Path, configuration: Configuration, edit: Edit, site: str) -> None:
    changed = interpret(
        configuration.reader.with_changes(edit.changed(configuration)), configuration.host
    )
    again = plan_edit(changed, Matcher(changed).match(site), NEW)
    assert not again.splices


@pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
@pytest.mark.parametrize("final", ["", "\n"])
@pytest.mark.parametrize(
    ("files", "site"),
    [
        pytest.param(DEBIAN, "shop.example.test", id="debian"),
        pytest.param(RED_HAT, "www.example.test", id="red hat"),
        pytest.param({"nginx.conf": HARD}, "a.example.test", id="one line"),
        pytest.param({"nginx.conf": HARD}, "b.example.test", id="comments everywhere"),
        pytest.param({"nginx.conf": LUA.decode()}, "lua.example.test", id="lua"),
    ],
)
def test_only_two_words_change(
    tmp_path: Path, files: dict[str, str], site: str, line_ending: str, final: str
) -> None:
    """Everything else is somebody's work."""
    given_files: dict[str, str | bytes] = {
        name: (text.rstrip("\n") + final).replace("\n", line_ending).encode()
        + (b"# \xff\xfe caf\xe9" + final.encode() if name == "nginx.conf" else b"")
        for name, text in files.items()
    }  # fmt: skip

    configuration, edit = edited(tmp_path, given_files, site)

    [(path, content)] = edit.changed(configuration).items()
    old = configuration.reader.files[path].data
    made = replacements(old, edit.splices[path])
    assert {b"/n/live/fullchain.pem", b"/n/live/privkey.pem"} == {one.new for one in made}
    assert old == take_back(content, made, path)
    assert len(old.splitlines()) == len(content.splitlines())
    twice_is_once(tmp_path, configuration, edit, site)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(
            "server {\n\tlisten 443 ssl;\n\tserver_name a.test; # us\n\troot /x;\n}",
            "server {\n\tlisten 443 ssl;\n\tserver_name a.test; # us\n"
            "\tssl_certificate /n/live/fullchain.pem;\n"
            "\tssl_certificate_key /n/live/privkey.pem;\n\troot /x;\n}",
            id="tabs, after server_name and its comment",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; root /x; }",
            f"server {{ listen 443 ssl; server_name a.test; {LINES} root /x; }}",
            id="one line stays one line",
        ),
        pytest.param(
            "server\r\n  {\r\n  listen 443 ssl;\r\n  server_name a.test;\r\n  }",
            "server\r\n  {\r\n  listen 443 ssl;\r\n  server_name a.test;\r\n"
            "  ssl_certificate /n/live/fullchain.pem;\r\n"
            "  ssl_certificate_key /n/live/privkey.pem;\r\n  }",
            id="CRLF",
        ),
        pytest.param(
            "server {\n    listen 443 ssl; server_name a.test; root /x;\n}",
            f"server {{\n    listen 443 ssl; server_name a.test; {LINES} root /x;\n}}",
            id="several directives on a line",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; }\n# {",
            f"server {{ listen 443 ssl; server_name a.test; {LINES} }}\n# {{",
            id="brace in a comment",
        ),
    ],
)
def test_missing_directives_are_added_in_the_style_of_the_block(
    tmp_path: Path, before: str, expected: str
) -> None:
    """A diff that a person would have written is one a person can review."""
    assert expected == after(tmp_path, before, "a.test")


@pytest.mark.parametrize(
    ("before", "listen", "added"),
    [
        pytest.param("listen 80;", "", ["listen 443 ssl;"], id="IPv4"),
        pytest.param(
            "listen 80; listen [::]:80;",
            "",
            ["listen 443 ssl;", "listen [::]:443 ssl;"],
            id="IPv4 and IPv6",
        ),
        pytest.param("listen 10.0.0.1:80;", "", ["listen 10.0.0.1:443 ssl;"], id="one address"),
        pytest.param("", "", ["listen 80;", "listen 443 ssl;"], id="the implicit port 80 stays"),
        pytest.param("listen 80;", "8443", ["listen 8443 ssl;"], id="explicit port"),
        pytest.param("listen 80;", "[::1]:8443", ["listen [::1]:8443 ssl;"], id="explicit address"),
    ],
)
def test_tls_is_enabled_where_asked_for(
    tmp_path: Path, before: str, listen: str, added: list[str]
) -> None:
    """The plain listener stays, since http-01 and redirects need it."""
    wanted = Change(NEW.certificate, NEW.key, "ECDSA", enable_tls=True, listen=listen)

    text = after(tmp_path, f"server {{ {before} server_name a.test; }}", "a.test", wanted)

    assert f"server_name a.test; {' '.join(added)} {LINES} }}" in text


def test_a_plain_block_is_refused_unless_asked(tmp_path: Path) -> None:
    """Opening a port is not for a renewal to decide."""
    with pytest.raises(InvalidRequest, match=r"nginx\.conf:3 does not serve TLS") as caught:
        edited(tmp_path, "server { listen 80; server_name a.test; }", "a.test")

    assert "listen 443 ssl;" in caught.value.remedy


def two_kinds(directory: Path, *kinds: str) -> str:
    """Return a block with one certificate of each of *kinds*."""
    lines = []
    for number, kind in enumerate(kinds):
        store(directory / f"{number}", CA.bundle("a.test", rsa_key=kind == "RSA"))
        lines.append(
            f"ssl_certificate {directory}/{number}.pem; "
            f"ssl_certificate_key {directory}/{number}.key;"
        )
    return f"server {{ listen 443 ssl; server_name a.test; {' '.join(lines)} }}"


@pytest.mark.parametrize(("kind", "kept"), [("ECDSA", "0"), ("RSA", "1")])
def test_of_two_kinds_of_keys_the_same_is_replaced(tmp_path: Path, kind: str, kept: str) -> None:
    """Old clients need the RSA certificate that is not ours to touch."""
    servers = two_kinds(tmp_path, "RSA", "ECDSA")

    text = after(tmp_path, servers, "a.test", Change(NEW.certificate, NEW.key, kind))

    assert f"{tmp_path}/{kept}.pem" in text
    assert f"{tmp_path}/{1 - int(kept)}.pem" not in text
    assert text.count("ssl_certificate ") == 2


def test_a_single_certificate_of_another_kind_is_replaced(tmp_path: Path) -> None:
    """Moving from RSA to ECDSA is what most sites do at the next renewal."""
    text = after(tmp_path, two_kinds(tmp_path, "RSA"), "a.test")

    assert text.count("ssl_certificate ") == 1
    assert NEW.certificate in text


def test_a_new_kind_is_added_beside_where_asked_for(tmp_path: Path) -> None:
    """nginx serves one certificate of each kind."""
    wanted = Change(NEW.certificate, NEW.key, "ECDSA", beside=True)

    text = after(tmp_path, two_kinds(tmp_path, "RSA"), "a.test", wanted)

    assert text.count("ssl_certificate ") == 2


INHERITED = """
ssl_certificate /h.pem; ssl_certificate_key /h.key;
server { listen 443 ssl; server_name a.test; }
server { listen 443 ssl; server_name b.test; }
"""


def test_an_inherited_certificate_is_overridden_in_the_block(tmp_path: Path) -> None:
    """The other sites go on with the one of the http level."""
    text = after(tmp_path, INHERITED, "a.test")

    assert f"server_name a.test; {LINES} }}" in text
    assert "ssl_certificate /h.pem;" in text


SHARED = {
    "nginx.conf": http("include a.conf; include b.conf;"),
    "a.conf": "server { listen 443 ssl; server_name a.test; include tls.conf; }",
    "b.conf": "server { listen 443 ssl; server_name b.test; include tls.conf; }",
    "tls.conf": "# ours\nssl_certificate /s.pem;\nssl_certificate_key /s.key;\n",
}
STREAM = {
    "nginx.conf": http("server { listen 443 ssl; server_name a.test; include tls.conf; }")
    + "stream { server { listen 990 ssl; include tls.conf; } }",
    "tls.conf": SHARED["tls.conf"],
}


@pytest.mark.parametrize(
    ("files", "words", "remedy"),
    [
        pytest.param(
            SHARED,
            r"tls\.conf:2: .* 2 server blocks include .*a\.conf:1, .*b\.conf:1",
            r"Remove line 2 of .*tls\.conf",
            id="snippet of two sites",
        ),
        pytest.param(STREAM, r"tls\.conf:2: .* 2 server blocks", "", id="http and stream"),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; ssl_certificate /c/$ssl_server_name.pem; "
            "ssl_certificate_key /c/$ssl_server_name.key; }",
            "decided for each connection",
            "ssl_certificate /n/live/fullchain.pem;",
            id="variables",
        ),
        pytest.param(
            "ssl_certificate /r.pem; ssl_certificate_key /r.key; ssl_certificate /e.pem; "
            "ssl_certificate_key /e.key; server { listen 443 ssl; server_name a.test; }",
            "inherits 2 certificates",
            "ssl_certificate /n/live/fullchain.pem;",
            id="two inherited",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; ssl_reject_handshake on; }",
            "refuses every client",
            "Remove line 3",
            id="rejects handshakes",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; ssl_certificate /a.pem; }",
            "1 ssl_certificate but 0 ssl_certificate_key",
            "Write both",
            id="half a pair",
        ),
    ],
)  # fmt: skip
def test_what_is_not_safe_is_refused_with_the_lines_to_change(
    tmp_path: Path, files: dict[str, str | bytes] | str, words: str, remedy: str
) -> None:
    """A refusal costs minutes, a wrong certificate on a neighbour's site costs more."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        edited(tmp_path, files, "a.test")

    assert re.search(remedy, caught.value.remedy)


def test_two_certificates_without_one_of_the_new_kind_are_refused(tmp_path: Path) -> None:
    """Which one to give up is for a person to say."""
    servers = two_kinds(tmp_path, "RSA", "RSA")

    with pytest.raises(InvalidRequest, match="none is ECDSA") as caught:
        edited(tmp_path, servers, "a.test")

    assert "key_types: add" in caught.value.remedy


def test_a_plain_listener_of_another_site_is_not_turned_into_tls(tmp_path: Path) -> None:
    """`ssl` on one block makes the whole address speak TLS."""
    wanted = Change(NEW.certificate, NEW.key, "ECDSA", enable_tls=True)
    servers = (
        "server { listen 80; server_name a.test; }\nserver { listen 443; server_name b.test; }"
    )

    with pytest.raises(InvalidRequest, match=r"\*:443 is already used without TLS by .*:4"):
        edited(tmp_path, servers, "a.test", wanted)


SPACES = st.sampled_from([" ", "\n", "\r\n", "\t", "\n    ", " # x;{}\n", "\r\n\t# \"'\r\n"])
EXTRA = st.sampled_from(
    [
        "root /x;",
        'add_header X "a;b{c}" always;',
        "location / { return 200 'ok }'; }",
        "if ($host = \"x y\") { return 404; }",
        "set $v ${host}x;",
        "location ~ ^/(a|b)$ { proxy_pass http://127.0.0.1:1; }",
        "ssl_protocols TLSv1.2 TLSv1.3;",
    ]
)  # fmt: skip


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(data=st.data())
def test_any_layout_is_edited_once_and_back(tmp_path: Path, data: st.DataObject) -> None:
    """Undo gives identical bytes, twice is once, the neighbours stay, whatever the style."""

    def block(name: str, *, certificate: bool) -> str:
        parts = ["listen 443 ssl;", f"server_name {name};", *data.draw(st.lists(EXTRA, max_size=4))]
        if certificate:
            parts += [f"ssl_certificate /{name}.pem;", f"ssl_certificate_key '/{name}.key';"]
        parts = data.draw(st.permutations(parts))
        gaps = [data.draw(SPACES) for _ in range(len(parts) + 1)]
        inner = "".join(gap + part for gap, part in zip(gaps, parts, strict=False))
        return f"server{data.draw(SPACES)}{{{inner}{gaps[-1]}}}"

    blocks = [block(f"s{number}.test", certificate=data.draw(st.booleans())) for number in range(3)]
    text = http("\n".join(blocks)).rstrip("\n") + data.draw(st.sampled_from(["", "\n", "\r\n"]))

    configuration, edit = edited(tmp_path, {"nginx.conf": text.encode()}, "s1.test")

    [(path, content)] = edit.changed(configuration).items()
    made = replacements(text.encode(), edit.splices[path])
    assert text.encode() == take_back(content, made, path)
    twice_is_once(tmp_path, configuration, edit, "s1.test")


def test_two_certificates_of_one_kind_are_refused(tmp_path: Path) -> None:
    """nginx serves the last of them, so one is a leftover that a person knows about."""
    with pytest.raises(InvalidRequest, match=r"has 2 ECDSA certificates: .*:3 and .*:3"):
        edited(tmp_path, two_kinds(tmp_path, "ECDSA", "ECDSA"), "a.test")


def test_the_blocks_own_plain_listener_is_not_doubled(tmp_path: Path) -> None:
    """`listen 443;` and `listen 443 ssl;` in one block is an error for nginx."""
    wanted = Change(NEW.certificate, NEW.key, "ECDSA", enable_tls=True)

    with pytest.raises(InvalidRequest, match=r"listens on \*:443 without TLS") as caught:
        edited(tmp_path, "server { listen 443; server_name a.test; }", "a.test", wanted)

    assert "Write `listen 443 ssl;` there instead" in caught.value.remedy


def test_key_and_chain_in_one_file_become_two(tmp_path: Path) -> None:
    """HAProxy's habit, which nginx allows."""
    servers = (
        "server { listen 443 ssl; server_name a.test; "
        "ssl_certificate /both.pem; ssl_certificate_key /both.pem; }"
    )

    text = after(tmp_path, servers, "a.test")

    assert "/both.pem" not in text
    assert LINES in text


@pytest.mark.parametrize("value", ["data:$pem", "engine:pkcs11:id_1", "store:pkcs11:object=a"])
def test_a_certificate_that_is_not_a_file_is_left_alone(tmp_path: Path, value: str) -> None:
    """The key is in a token or comes from a module; we could only break that."""
    servers = (
        "server { listen 443 ssl; server_name a.test; "
        f'ssl_certificate /a.pem; ssl_certificate_key "{value}"; }}'
    )

    with pytest.raises(InvalidRequest, match="is not one file"):
        edited(tmp_path, servers, "a.test")


def test_a_relative_path_to_the_live_version_is_already_right(tmp_path: Path) -> None:
    """nginx reads it relative to the directory of nginx.conf."""
    live = f"{tmp_path}/n/live"
    wanted = Change(f"{live}/fullchain.pem", f"{live}/privkey.pem", "ECDSA")
    servers = (
        "server { listen 443 ssl; server_name a.test; "
        "ssl_certificate n/live/fullchain.pem; ssl_certificate_key n/live/privkey.pem; }"
    )

    _, edit = edited(tmp_path, servers, "a.test", wanted)

    assert not edit.splices


def test_a_path_with_a_space_is_quoted(tmp_path: Path) -> None:
    """Whoever names directories like that still wants a working server."""
    wanted = Change("/n n/live/fullchain.pem", "/n n/live/privkey.pem", "ECDSA")

    text = after(tmp_path, "server { listen 443 ssl; server_name a.test; }", "a.test", wanted)

    assert 'ssl_certificate "/n n/live/fullchain.pem";' in text
