"""nginx configurations as distributions and people write them, and a host to read them from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from certrail.remote.local import LocalHost
from certrail.servers.nginx.config import Configuration, read_configuration

DEBIAN = {
    "nginx.conf": """user www-data;
worker_processes auto;
pid /run/nginx.pid;
include modules-enabled/*.conf;

events {
\tworker_connections 768;
\t# multi_accept on;
}

http {

\t##
\t# Basic Settings
\t##

\tsendfile on;
\ttypes_hash_max_size 2048;
\tinclude mime.types;
\tdefault_type application/octet-stream;
\tssl_protocols TLSv1.2 TLSv1.3; # Dropping SSLv3, ref: POODLE
\taccess_log /var/log/nginx/access.log;
\tgzip on;

\tinclude conf.d/*.conf;
\tinclude sites-enabled/*;
}


#mail {
#\tserver {
#\t\tlisten     localhost:110;
#\t}
#}
""",
    "mime.types": "types {\n    text/html html htm shtml;\n    image/svg+xml svg svgz;\n}\n",
    "sites-enabled/default": """##
# You should look at the following URL's
##
server {
\tlisten 80 default_server;
\tlisten [::]:80 default_server;

\t# SSL configuration
\t#
\t# listen 443 ssl default_server;
\t# include snippets/snakeoil.conf;

\troot /var/www/html;
\tindex index.html index.htm;

\tserver_name _;

\tlocation / {
\t\ttry_files $uri $uri/ =404;
\t}

\t#location ~ \\.php$ {
\t#\tinclude snippets/fastcgi-php.conf;
\t#}
}
""",
    "sites-enabled/shop": """server {
\tlisten 443 ssl http2;
\tlisten [::]:443 ssl http2;
\tserver_name shop.example.test;
\tinclude snippets/shop-tls.conf;
\tlocation ~* "\\.(png|jpg){1,2}$" { expires 30d; }
}
server { listen 80; server_name shop.example.test; return 301 https://$host$request_uri; }
""",
    "snippets/shop-tls.conf": (
        "ssl_certificate /etc/ssl/certs/shop.pem;\nssl_certificate_key /etc/ssl/private/shop.key;\n"
    ),
}

RED_HAT = {
    "nginx.conf": """# For more information on configuration, see:
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;

include /usr/share/nginx/modules/*.conf.absent;

events {
    worker_connections 1024;
}

http {
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';

    access_log  /var/log/nginx/access.log  main;
    sendfile            on;
    types_hash_max_size 4096;
    default_type        application/octet-stream;

    include conf.d/*.conf;

    server {
        listen       80;
        listen       [::]:80;
        server_name  _;
        root         /usr/share/nginx/html;

        error_page 404 /404.html;
        location = /404.html {
        }
    }

    server {
        listen       443 ssl http2;
        listen       [::]:443 ssl http2;
        server_name  _;
        root         /usr/share/nginx/html;

        ssl_certificate "/etc/pki/nginx/server.crt";
        ssl_certificate_key "/etc/pki/nginx/private/server.key";
        ssl_session_cache shared:SSL:1m;
        ssl_ciphers PROFILE=SYSTEM;
    }
}
""",
}

HARD = """\
# a comment with { ; " ' } in it
events{}http{
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  map $uri $new { ~^/old/(?<x>.*)$ "/new/${x}"; "/a b" /c\\;d; }
  geo $bad { default 0; 10.0.0.0/8 1; }
  server{listen 443 ssl;server_name a.example.test;ssl_certificate /a;ssl_certificate_key /k;}
  server # why not here
  {
    listen # the port
      443 # is this
      ssl ; server_name
      b.example.test   # one
      "c.example.test" # two
      ;
    if ($host = "b.example.test") { return 301 https://c.example.test$request_uri; }
    add_header X-Note "it's; {fine}" always;
    add_header X-Other 'say "no"; \\'yes\\'';
    location ~ ^/(a|b)\\{2,3\\}$ { return 200 "}"; }
    ssl_certificate
        "/b b.pem"
      ; ssl_certificate_key /b\\ b.key
    ;
  }
}
"""

LUA = b"""events {}
http {
    init_by_lua_block {
        -- a } in a comment, and it's quoted
        local t = { a = "}", b = '{', c = [[ } ]], d = [==[ ]] } ]==] }
        --[[ } } } ]]
        if t.a == "\\"}" then return end
    }
    server {
        listen 443 ssl;
        server_name lua.example.test;
        access_by_lua_block { ngx.say("server { listen 443; }") }
        ssl_certificate /l.pem;
        ssl_certificate_key /l.key;
    }
}
"""


def write(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write *files* below *directory*; returns the path of nginx.conf."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return directory / "nginx.conf"


def http(servers: str) -> str:
    """Return a whole nginx.conf around server blocks."""
    return f"events {{}}\nhttp {{\n{servers}\n}}\n"


def read(directory: Path, files: Mapping[str, str | bytes] | str) -> Configuration:
    """Write a configuration and read it as certrail does."""
    given = {"nginx.conf": http(files)} if isinstance(files, str) else files
    return read_configuration(LocalHost("here"), str(write(directory, given)))
