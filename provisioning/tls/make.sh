#!/usr/bin/env bash
# A certificate authority of your own for a test installation, and what it signs: HAProxy, Grafana, and a client of the bridge.
# `make.sh --help` tells how; README.md beside it, how to use certificates of a real authority instead.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: provisioning/tls/make.sh FOLDER [--name HOST]... [--ip ADDRESS]... [--days N] [--renew | --force]

Writes into FOLDER (made where it is missing):
  ca.crt ca.key            the authority; give ca.crt to every client, keep ca.key off the servers
  haproxy.pem              certificate and key of HAProxy (LB_CERTIFICATE)
  grafana.crt grafana.key  the same for a Grafana that speaks HTTPS itself
  client.crt client.key    a client of the bridge, for LB_CLIENT_CERTS=required

  --name, --ip   a further name or address by which clients call the servers (localhost, haproxy, grafana, 127.0.0.1 and ::1
                 are in anyway)
  --days         how long the certificates are good (397); the authority is good for ten years
  --renew        new certificates from the authority that is there
  --force        a new authority too, over what is there: every client needs the new ca.crt
TEXT
}

fail() {
  echo "make.sh: $1" >&2
  exit 2
}

folder='' days=397 how=new
names='DNS:localhost,DNS:haproxy,DNS:grafana,IP:127.0.0.1,IP:::1'
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --name | --ip | --days)
      [ $# -gt 1 ] && [ -n "$2" ] || fail "$1 needs a value"
      case $1 in
        --name) [[ $2 =~ ^[A-Za-z0-9*.-]+$ ]] || fail "--name $2: not a host name" && names+=",DNS:$2" ;;
        --ip) [[ $2 =~ ^[0-9A-Fa-f.:]+$ ]] || fail "--ip $2: not an address" && names+=",IP:$2" ;;
        --days) [[ $2 =~ ^[1-9][0-9]{0,3}$ ]] || fail "--days $2: a number from 1 to 9999" && days=$2 ;;
      esac
      shift 2 ;;
    --renew | --force) how=${1#--} && shift ;;
    -*) fail "unknown option $1; --help lists them" ;;
    *) [ -z "$folder" ] || fail "one FOLDER only, not also $1" && folder=$1 && shift ;;
  esac
done
[ -n "$folder" ] || { usage >&2 && exit 2; }
command -v openssl >/dev/null || fail "openssl is not on the PATH; on Debian: apt-get install openssl"

present=()
for file in ca.crt ca.key haproxy.pem grafana.crt grafana.key client.crt client.key; do
  [ ! -e "$folder/$file" ] || present+=("$file")
done
if [ "$how" = new ] && [ ${#present[@]} -gt 0 ]; then
  fail "$folder has ${present[*]} already: --renew keeps the authority, --force replaces everything"
fi
if [ "$how" = renew ]; then
  [ -s "$folder/ca.crt" ] && [ -s "$folder/ca.key" ] || fail "--renew needs ca.crt and ca.key in $folder"
fi

mkdir -p "$folder"
umask 077 # keys are their owner's from the first byte on
# Made aside and moved when all is well: what is there stays whole when anything fails.
made=$(mktemp -d "$folder/.making.XXXXXX")
trap 'rm -rf "$made"' EXIT
quietly() {
  "$@" 2>"$made/said" || fail "$*: $(cat "$made/said")"
}

authority() {
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
    -subj "/O=Trade Distribution System/CN=Test authority $(date -u +%F)" \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout "$made/ca.key" -out "$made/ca.crt"
}

# signed NAME USAGE [SUBJECT-ALTERNATIVE-NAMES]
signed() {
  {
    echo 'basicConstraints=critical,CA:FALSE'
    echo 'keyUsage=critical,digitalSignature'
    echo "extendedKeyUsage=$2"
    echo 'subjectKeyIdentifier=hash'
    echo 'authorityKeyIdentifier=keyid'
    [ -z "${3:-}" ] || echo "subjectAltName=$3"
  } >"$made/extensions"
  quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
    -subj "/O=Trade Distribution System/CN=$1" -keyout "$made/$1.key" -out "$made/$1.csr"
  quietly openssl x509 -req -sha256 -days "$days" -in "$made/$1.csr" -CA "$made/ca.crt" -CAkey "$made/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$made/extensions" -out "$made/$1.crt"
  quietly openssl verify -CAfile "$made/ca.crt" "$made/$1.crt" >/dev/null
}

if [ "$how" = renew ]; then
  cp "$folder/ca.crt" "$folder/ca.key" "$made/"
else
  authority
fi
signed haproxy serverAuth "$names"
signed grafana serverAuth "$names"
signed client clientAuth
cat "$made/haproxy.crt" "$made/haproxy.key" >"$made/haproxy.pem"
chmod 644 "$made"/*.crt
chmod 600 "$made"/*.key "$made/haproxy.pem"
for file in ca.key ca.crt haproxy.pem grafana.key grafana.crt client.key client.crt; do
  mv -f "$made/$file" "$folder/$file"
done
echo "$folder: certificates for $(openssl x509 -in "$folder/grafana.crt" -noout -ext subjectAltName | tail -n 1 | tr -d ' '), good for $days days"
