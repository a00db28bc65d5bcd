#!/bin/bash
# Run once by the PostgreSQL image, on an empty volume: the databases besides ml_dev, then the project's SQL.
# The image runs this file or, where it is not executable, reads it into its own shell: both must work.
set -e

run_sql() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

# lake: catalog of the DuckLake; dagster: Dagster's history; mlflow: the tracking server's store.
for database in lake dagster mlflow; do
  run_sql <<SQL
SELECT 'CREATE DATABASE $database' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$database')\gexec
SQL
done

for file in /sql/postgres/init/*.sql; do
  run_sql --file "$file"
done
