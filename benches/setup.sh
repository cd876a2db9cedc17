#!/bin/sh
# Installs what `make bench` compares against: Debian's nginx and its nchan module.
# Does nothing when they are there. Never leaves a system nginx running: the bench starts its own.
set -eu

module=/usr/lib/nginx/modules/ngx_nchan_module.so
# Debian keeps nginx in /usr/sbin, which is not on every user's PATH.
PATH="$PATH:/usr/sbin:/sbin"
if command -v nginx >/dev/null && [ -e "$module" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "benches/setup.sh: install nginx and the nchan module by hand: there is no apt-get here" >&2
    exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
fi

# While this file says 101, packages do not start their services (Debian policy 9.3.3.1).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

$as_root apt-get update -q
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    nginx libnginx-mod-nchan
