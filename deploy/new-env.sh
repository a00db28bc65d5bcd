#!/bin/sh
# Writes .env beside docker-compose.yml: .env.example with a fresh random value for every secret.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo ".env is there already and PostgreSQL's volume knows its password: edit it, or remove it to begin anew." >&2
  exit 1
fi
umask 077
while IFS= read -r line; do
  case $line in
    *_PASSWORD= | *_TOKEN=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
  esac
  printf '%s\n' "$line"
done <.env.example >.env
echo "Wrote .env with fresh passwords."
