#!/bin/sh
# Writes what docker-compose.yml needs: .env, and in the folder that SECRETS_DIR names a file for each secret. What is
# there stays: a password that has a file keeps it, since the stores' volumes know it. The files with URLs are made anew
# of the passwords. Run it again after a change of COMPOSE_PROFILES or of a password's file.
set -eu
cd "$(dirname "$0")/.."
umask 077

if [ -e .env ]; then
  # Its last line may have no end, and would take the next one in.
  [ -z "$(tail -c 1 .env)" ] || echo >>.env
  # What a newer .env.example has besides.
  grep '^[A-Z_]*=' .env.example | while IFS= read -r line; do
    grep -q "^${line%%=*}=" .env || printf '%s\n' "$line" >>.env
  done
else
  cp .env.example .env
fi

setting() { sed -n "s/^$1=//p" .env | tail -n 1; }
folder=$(setting SECRETS_DIR)
profiles=$(setting COMPOSE_PROFILES)
mkdir -p "$folder"
# Nobody else comes in. The files themselves are read by users of containers, whose numbers are others than yours.
chmod 700 "$folder"

# Without an end of line, which Jupyter would take for a part of its token.
write() {
  printf '%s' "$2" >"$folder/.$1.new"
  chmod 444 "$folder/.$1.new"
  mv -f "$folder/.$1.new" "$folder/$1"
}

# The value of a password: of its file, of an .env of before there were files, or a fresh one.
password() {
  if [ -e "$folder/$1" ]; then
    value=$(cat "$folder/$1")
  else
    value=$(setting "$(printf '%s' "$1" | tr '[:lower:]' '[:upper:]')")
    [ -n "$value" ] || value=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  fi
  case $value in
    '' | *[!A-Za-z0-9]*)
      echo "$folder/$1 may hold letters and digits only, because passwords become parts of URLs." >&2
      exit 1
      ;;
  esac
  write "$1" "$value"
}

password postgres_password
password clickhouse_password
password grafana_password
password jupyter_token

for role in writer reader; do
  password "postgres_${role}_password"
  write "${role}_postgres_url" "postgresql://ml_$role:$value@postgres:5432/ml_dev"
  write "${role}_lake_url" "postgresql://ml_$role:$value@postgres:5432/lake"
  password "clickhouse_${role}_password"
  write "${role}_clickhouse_url" "clickhouse://ml_$role:$value@clickhouse:8123/ml_metrics"
done
password postgres_dagster_password
write dagster_postgres_url "postgresql://ml_dagster:$value@postgres:5432/dagster"
password postgres_mlflow_password
write mlflow_backend_store_uri "postgresql://ml_mlflow:$value@postgres:5432/mlflow"
password redis_password
write redis_url "redis://:$value@redis:6379/0"
write celery_broker_url "redis://:$value@redis:6379/1"
password qdrant_api_key
# An empty file is a setting that is not set.
case ",$profiles," in
  *,qdrant,*) write qdrant_url "http://:$value@qdrant:6333" ;;
  *) write qdrant_url "" ;;
esac
# The key of an object store is yours to fill in: docs/servers.md. What is there stays.
[ -e "$folder/aws_credentials" ] || write aws_credentials ""

# Passwords of an .env of before there were files are in files now.
if grep -qE '^[A-Z_]+_(PASSWORD|TOKEN)=' .env; then
  grep -vE '^[A-Z_]+_(PASSWORD|TOKEN)=' .env >.env.new
  mv -f .env.new .env
fi
echo "Wrote .env, and the secrets' files in $folder."
