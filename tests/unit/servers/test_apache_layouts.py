"""Apache configurations as distributions and people lay them out: only one pair changes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.remote.local import LocalHost
from certrail.servers.apache.config import Configuration, VirtualHost, interpret
from certrail.servers.apache.edit import plan_edit
from certrail.servers.apache.tree import Reader
from certrail.servers.change import Change
from certrail.servers.splice import replacements, splice, take_back

HOST = LocalHost("here")
NEW = Change("/n/live/fullchain.pem", "/n/live/privkey.pem", "ECDSA")
RED_HAT = {
    "conf/httpd.conf": """ServerRoot "@dir@"
Listen 80
Include conf.modules.d/*.conf
User apache
Group apache
ServerAdmin root@localhost
<Directory />
    AllowOverride none
    Require all denied
</Directory>
DocumentRoot "/var/www/html"
<IfModule dir_module>
    DirectoryIndex index.html
</IfModule>
ErrorLog "logs/error_log"
<IfModule log_config_module>
    LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
    CustomLog "logs/access_log" common
</IfModule>
AddDefaultCharset UTF-8
EnableSendfile on
IncludeOptional conf.d/*.conf
""",
    "conf.modules.d/00-base.conf": "LoadModule dir_module modules/mod_dir.so\n",
    "conf.modules.d/00-ssl.conf": "LoadModule ssl_module modules/mod_ssl.so\n",
    "conf.d/README": "not read\n",
    "conf.d/ssl.conf": """Listen 443 https
SSLPassPhraseDialog exec:/usr/libexec/httpd-ssl-pass-dialog
SSLSessionCache         shmcb:/run/httpd/sslcache(512000)
<VirtualHost _default_:443>
ErrorLog logs/ssl_error_log
LogLevel warn
SSLEngine on
SSLHonorCipherOrder on
SSLCipherSuite PROFILE=SYSTEM
#   Point SSLCertificateFile at a PEM encoded certificate.
SSLCertificateFile /etc/pki/tls/certs/localhost.crt
SSLCertificateKeyFile /etc/pki/tls/private/localhost.key
#SSLCertificateChainFile /etc/pki/tls/certs/server-chain.crt
<FilesMatch "\\.(cgi|shtml|phtml|php)$">
    SSLOptions +StdEnvVars
</FilesMatch>
CustomLog logs/ssl_request_log \\
          "%t %h %{SSL_PROTOCOL}x %{SSL_CIPHER}x \\"%r\\" %b"
</VirtualHost>
""",
    "conf.d/z-shop.conf": """<IfModule ssl_module>
<VirtualHost *:443 [::]:443>
    ServerName shop.example.test:443
    ServerAlias www.shop.example.test
    Include conf.d/tls/shop.inc
</VirtualHost>
</IfModule>
""",
    "conf.d/tls/shop.inc": (
        "SSLEngine on\n"
        "SSLCertificateFile /etc/pki/tls/certs/shop.crt\n"
        "SSLCertificateKeyFile /etc/pki/tls/private/shop.key\n"
    ),
}


def read(directory: Path, files: Mapping[str, bytes], main: str) -> Configuration:
    """Write *files* and read them as the server does."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(b"@dir@", str(directory).encode()))
    return interpret(Reader(HOST, str(directory / main)).read(), HOST)


def must_be_the_only_change(configuration: Configuration, name: str, listen: str = "") -> None:
    """Edit the site: only its two words change, once, and can be taken back byte for byte."""
    reader = configuration.reader
    host = configuration.match(name, listen)
    made = plan_edit(configuration, host, NEW)

    after = {path: splice(reader.files[path], splices) for path, splices in made.items()}
    for path, content in after.items():
        old = reader.files[path]
        undone = take_back(content, replacements(old, made[path]), path)
        assert old == undone
        assert len(old.splitlines()) == len(content.splitlines())
    edited = interpret(reader.again(after), HOST)
    before = {one.place: used(one) for one in configuration.hosts}
    now = {one.place: used(one) for one in edited.hosts}
    assert now.pop(host.place) == [NEW.certificate, NEW.key]
    before.pop(host.place)
    assert before == now
    assert not plan_edit(edited, edited.match(name, listen), NEW)


def used(host: VirtualHost) -> list[str]:
    """Return the files that a virtual host names."""
    found = []
    for pair in host.pairs:
        found.append(pair.certificate.arguments[0])
        found += [pair.key.arguments[0]] if pair.key else []
    return found


@pytest.mark.parametrize("line_ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("final", [b"", b"\n"])
@pytest.mark.parametrize(
    ("name", "listen"),
    [("localhost", "_default_:443"), ("shop.example.test", "443"), ("www.shop.example.test", "")],
)
def test_red_hat(tmp_path: Path, name: str, listen: str, line_ending: bytes, final: bytes) -> None:
    """httpd.conf, conf.modules.d, ssl.conf, a site beside them and its snippet, /etc/pki/tls."""
    files = {
        file: text.encode().rstrip(b"\n").replace(b"\n", line_ending) + final
        for file, text in RED_HAT.items()
    }
    files["conf.d/ssl.conf"] = b"# caf\xe9 \xff\xfe" + line_ending + files["conf.d/ssl.conf"]

    configuration = read(tmp_path, files, "conf/httpd.conf")

    assert len(configuration.hosts) == 2
    must_be_the_only_change(configuration, name, "" if listen == "443" else listen)


ADDRESSES = ("*:443", "[::]:443", "10.0.0.1:443 [2001:db8::1]:443", "_default_:8443")
COMMENTS = (b"", b"# caf\xe9 \xff", b"   # SSLEngine off", b"# <VirtualHost *:443>")
PLACES = ("main", "file", "include of include")


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, bytes], int]:
    """Files with several virtual hosts, and which of them is to be changed."""
    eol = draw(st.sampled_from((b"\n", b"\r\n")))
    files: dict[str, bytes] = {}
    main = [b"ServerRoot @dir@", b"LoadModule ssl_module modules/mod_ssl.so"]
    count = draw(st.integers(1, 4))
    for number in range(count):
        indent = draw(st.sampled_from((b"", b"\t", b"    ")))
        quote = draw(st.sampled_from((b"", b'"')))
        spelled = draw(st.sampled_from((b"SSLCertificateFile", b"sslcertificatefile")))
        pair = [
            indent + spelled + b"  " + quote + b"/c/%d.pem" % number + quote,
            indent + b"SSLCertificateKeyFile \\" + eol + indent + b" /c/%d.key" % number,
        ]
        body = [
            indent + b"ServerName s%d.example.test" % number,
            indent + b"SSLEngine on",
            draw(st.sampled_from(COMMENTS)),
        ]
        if draw(st.booleans()):
            files[f"tls/{number}.inc"] = eol.join(pair)
            body.append(indent + b"Include tls/%d.inc" % number)
        else:
            body += pair
        opening = b"<VirtualHost " + draw(st.sampled_from(ADDRESSES)).encode() + b">"
        block = [opening, *body, b"</VirtualHost>"]
        if draw(st.booleans()):
            block = [b"<IfModule mod_ssl.c>", *block, b"</IfModule>"]
        match draw(st.sampled_from(PLACES)):
            case "main":
                main += block
            case "file":
                files[f"sites/{number}.conf"] = eol.join(block)
                main.append(b"IncludeOptional sites/%d.co*" % number)
            case _:
                files[f"deep/{number}.conf"] = eol.join(block)
                files[f"sites/{number}.inc"] = b"Include deep/%d.conf" % number
                main.append(b"Include sites/%d.inc" % number)
    final = draw(st.sampled_from((b"", eol)))
    files["apache2.conf"] = eol.join(main) + final
    return files, draw(st.integers(0, count - 1))


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_hard_layouts(layout: tuple[dict[str, bytes], int]) -> None:
    """Includes of includes, IPv6, CRLF, a missing final newline, bytes that are no text."""
    files, number = layout
    with tempfile.TemporaryDirectory() as folder:
        configuration = read(Path(folder), files, "apache2.conf")

        must_be_the_only_change(configuration, f"s{number}.example.test")
