#!/bin/sh
# Starts one instance of Kinto from what Isles puts into its environment: PORT and DATABASE_URL.
set -eu
PATH="$PWD/venv/bin:$PATH"

# Isles writes postgres://, SQLAlchemy wants postgresql://.
url="postgresql://${DATABASE_URL#*://}"
export KINTO_INI=kinto.ini
export KINTO_STORAGE_URL="$url" KINTO_PERMISSION_URL="$url" KINTO_CACHE_URL="$url"

# While no region may write yet, there is nothing to migrate: ask again.
until python migrate.py; do sleep 1; done
exec kinto start --port "$PORT"
