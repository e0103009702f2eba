#!/usr/bin/env bash
# Installs what Isles needs on this machine: PostgreSQL (15 or newer) and etcd, as programs only. No service is left
# running, none starts at boot, and a server that is already here is left as it is. Silent when nothing is missing.
set -euo pipefail

POSTGRESQL_MIN=15

# The newest PostgreSQL among the usual places; 0 when there is none.
postgresql_version() {
  local newest=0 initdb version
  for initdb in "$(command -v initdb || true)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
    /opt/homebrew/opt/postgresql@*/bin/initdb /usr/local/opt/postgresql@*/bin/initdb; do
    [[ -x $initdb ]] || continue
    version=$("$initdb" --version | grep -oE '[0-9]+' | head -n 1)
    ((version > newest)) && newest=$version
  done
  echo "$newest"
}

missing() {
  if (($(postgresql_version) < POSTGRESQL_MIN)); then echo postgresql; fi
  if ! command -v etcd >/dev/null; then echo etcd-server; fi
  if ! command -v cc >/dev/null; then echo build-essential; fi
}

# What only one drill needs (clock-skew): nice to have, and never asked a password for.
wanted() {
  if ! compgen -G '/usr/lib/*/faketime/libfaketime*.so.1' >/dev/null; then echo libfaketime; fi
}

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    # Nobody is there to type a password in CI.
    if [[ -n ${CI:-} ]]; then sudo -n "$@"; else sudo "$@"; fi
  else
    fail "Missing: $(missing | tr '\n' ' ')" "Installing needs root, and there is no sudo. As root: scripts/install-dependencies.sh"
  fi
}

# Debian's packages start a server at once. A policy that forbids it stands while they install.
install_debian() {
  local log policy=/usr/sbin/policy-rc.d made_policy=no
  log=$(mktemp)
  # shellcheck disable=SC2064 # The name of the log is known now.
  trap "rm -f '$log'" EXIT
  if [[ ! -e $policy ]]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  # The package would make a cluster of its own, which starts at boot.
  local clusters=/etc/postgresql-common/createcluster.conf had_clusters=no
  if [[ -e $clusters ]]; then
    had_clusters=yes
    as_root cp -p "$clusters" "$clusters.before-isles"
  else
    as_root mkdir -p "${clusters%/*}"
  fi
  echo 'create_main_cluster = false' | as_root tee -a "$clusters" >/dev/null
  local status=0
  {
    as_root apt-get update -qq &&
      as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
  } >"$log" 2>&1 </dev/null || status=$?
  if [[ $made_policy == yes ]]; then as_root rm -f "$policy"; fi
  if [[ $had_clusters == yes ]]; then as_root mv "$clusters.before-isles" "$clusters"; fi
  if ((status != 0)); then
    cat "$log" >&2
    fail "Could not install: $*"
  fi
  # A lease store belongs to each lab and each region; this one would answer on etcd's own port.
  if [[ " $* " == *" etcd-server "* ]] && [[ -d /run/systemd/system ]]; then
    as_root systemctl disable --quiet etcd 2>/dev/null || true
  fi
}

main() {
  if ! command -v cargo >/dev/null; then
    fail "Missing: Rust 1.90 or newer. Install it with rustup: https://rustup.rs"
  fi
  local packages
  read -r -a packages <<<"$(missing | tr '\n' ' ')"
  if command -v apt-get >/dev/null && ((EUID == 0 || ${#packages[@]} > 0)); then
    # shellcheck disable=SC2207 # Names of packages have no spaces.
    packages+=($(wanted))
  fi
  if ((${#packages[@]} == 0)); then exit 0; fi

  if command -v apt-get >/dev/null; then
    echo "Installing: ${packages[*]}"
    install_debian "${packages[@]}"
  else
    fail "Missing: ${packages[*]} (PostgreSQL $POSTGRESQL_MIN or newer, etcd 3.4 or newer, a C compiler). Install:" \
      "  Fedora   sudo dnf install postgresql-server etcd gcc" \
      "  Arch     sudo pacman -S postgresql etcd base-devel   (etcd: from the AUR)" \
      "  macOS    brew install postgresql@16 etcd" \
      "Only the programs are needed; start no service."
  fi
  if (($(postgresql_version) < POSTGRESQL_MIN)); then
    fail "This system's PostgreSQL is older than $POSTGRESQL_MIN. Add the PostgreSQL project's packages, then try again:" \
      "  sudo apt-get install postgresql-common && sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"
  fi
}

main "$@"
