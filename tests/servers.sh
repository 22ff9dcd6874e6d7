#!/usr/bin/env bash
# The real servers that the tests drive. As root they are installed; otherwise the missing ones are named.
set -euo pipefail

packages=(
  apache2 bind9 bind9-dnsutils curl default-jre-headless dovecot-imapd dovecot-pop3d gcc haproxy
  golang-github-smallstep-certificates-dev golang-go libc6-dev libgnutls-dane0 libidn12
  lighttpd lighttpd-mod-openssl mariadb-server nginx
  openssh-client openssh-server openssl pdns-backend-lmdb pdns-backend-sqlite3 pdns-server pebble
  postfix postgresql procps redis-server slapd sudo systemd
  tomcat10 tomcat10-admin
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "The tests drive real servers, and these Debian packages are missing:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 1
  fi

  # The packages must not start their services: the tests start their own, on free ports.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Debian's Exim and Postfix cannot be installed together: Exim is unpacked beside.
exim=/var/tmp/certrail-test-exim-$(id -u)
if [ ! -x "$exim/usr/sbin/exim4" ]; then
  folder=$(mktemp -d)
  cd "$folder"
  apt-get -q download exim4-daemon-light exim4-config ||
    { apt-get update -q && apt-get -q download exim4-daemon-light exim4-config; }
  cd - >/dev/null
  for file in "$folder"/*.deb; do dpkg -x "$file" "$folder/root"; done
  chmod 755 "$folder/root"
  rm -rf "$exim"
  mv "$folder/root" "$exim"
  rm -rf "$folder"
fi
if ! getent passwd Debian-exim >/dev/null; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "The tests run Exim, and its account is missing: useradd --system --user-group Debian-exim" >&2
    exit 1
  fi
  useradd --system --user-group --no-create-home --shell /usr/sbin/nologin Debian-exim
fi

# Debian has smallstep's step-ca as a library only: its server is built of it, once. That takes a
# minute, beside what comes next: whoever wants the server waits for the lock.
source=$(dirname "$(realpath "$0")")/support/step_ca
built=/var/tmp/certrail-test-step-ca-$(id -u)
mkdir -p "$built"
exec 9>"$built/lock"
flock 9
if ! cmp -s "$source/main.go" "$built/main.go"; then
  (
    rm -f "$built/step-ca"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    CGO_ENABLED=0 GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$folder" \
      go build -o "$built/step-ca" "$source/main.go" && cp "$source/main.go" "$built/main.go"
  ) >"$built/log" 2>&1 </dev/null &
fi
