#!/bin/sh
# Runs a program with those secrets that it takes from the environment alone. Where NAME_FILE names a file, NAME becomes
# what the file holds, for the program and nobody else: `docker inspect` shows the name of the file. ml-assets itself
# reads files (ML_ASSETS_SECRETS_DIR).
set -eu
for name in DAGSTER_POSTGRES_URL MLFLOW_BACKEND_STORE_URI; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
  fi
done
exec "$@"
