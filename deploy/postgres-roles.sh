#!/bin/bash
# Run by the PostgreSQL image after postgres-init.sh: who may do what. By hand at any time on a server that runs:
#   docker compose exec postgres bash /docker-entrypoint-initdb.d/postgres-roles.sh
# sets the passwords to those of the secrets' files, and gives what is there to its new owner. Safe to repeat.
#
#   $POSTGRES_USER  owner of the server and of its databases; for administration alone
#   ml_writer       the graph: owns all schemas of ml_dev and lake, since the first write of a table makes it
#   ml_reader       notebooks: reads ml_dev and lake
#   ml_dagster      Dagster's history: the database dagster, nothing else
#   ml_mlflow       the tracking server's store: the database mlflow, nothing else
set -e

run_sql() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"
}

# For the commands that follow, and not for the server, where the image reads this file into its own shell: each password
# that the environment does not have, from its secret's file.
with_passwords() (
  for name in POSTGRES_WRITER_PASSWORD POSTGRES_READER_PASSWORD POSTGRES_DAGSTER_PASSWORD POSTGRES_MLFLOW_PASSWORD; do
    if [ -z "${!name:-}" ]; then
      password=$(cat "/run/secrets/${name,,}")
      export "$name=$password"
    fi
  done
  "$@"
)

# Passwords are read by psql itself: on a command line everybody who lists processes reads them. One that is unset is
# an error of syntax, and changes nothing.
with_passwords run_sql --dbname "$POSTGRES_DB" --single-transaction <<'SQL'
\getenv writer POSTGRES_WRITER_PASSWORD
\getenv reader POSTGRES_READER_PASSWORD
\getenv dagster POSTGRES_DAGSTER_PASSWORD
\getenv mlflow POSTGRES_MLFLOW_PASSWORD
SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['ml_writer', 'ml_reader', 'ml_dagster', 'ml_mlflow']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)\gexec
-- The server logs a statement that fails, and counts one that does not, with what stands in it; passwords are not to be
-- among that.
SET LOCAL log_min_error_statement = panic;
SET LOCAL pg_stat_statements.track = 'none';
ALTER ROLE ml_writer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'writer';
ALTER ROLE ml_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 50
  PASSWORD :'reader';
ALTER ROLE ml_dagster LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'dagster';
ALTER ROLE ml_mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'mlflow';
-- Quotas of those who explore. A session may change the first two for itself; what may be changed, grants decide.
ALTER ROLE ml_reader SET default_transaction_read_only = on;
ALTER ROLE ml_reader SET statement_timeout = '5min';
ALTER ROLE ml_reader SET temp_file_limit = '4GB';
REVOKE ALL ON DATABASE ml_dev, lake, dagster, mlflow, postgres, template1 FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE ml_dev, lake TO ml_writer;
GRANT CONNECT ON DATABASE ml_dev, lake TO ml_reader;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE dagster TO ml_dagster;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE mlflow TO ml_mlflow;
SQL

# What a database holds already belongs to the role that writes there; not what extensions have made.
while read -r database role; do
  run_sql --dbname "$database" --set role="$role" --single-transaction <<'SQL'
SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, :'role')
FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'\gexec
SELECT format('ALTER %s %s OWNER TO %I', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
    WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass, :'role')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'v', 'm', 'S')
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'a', 'i')
    )\gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;
SQL
done <<DATABASES
ml_dev ml_writer
lake ml_writer
dagster ml_dagster
mlflow ml_mlflow
DATABASES

for database in ml_dev lake; do
  run_sql --dbname "$database" --single-transaction <<'SQL'
SELECT format('GRANT USAGE ON SCHEMA %I TO ml_reader', nspname),
    format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO ml_reader', nspname)
FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'\gexec
-- And all that the writer makes from now on.
ALTER DEFAULT PRIVILEGES FOR ROLE ml_writer GRANT USAGE ON SCHEMAS TO ml_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE ml_writer GRANT SELECT ON TABLES TO ml_reader;
SQL
done
