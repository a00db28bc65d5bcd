-- The extensions of the project. vector is required; of the others, whichever the server offers:
-- the embedded server carries vector alone. Safe to run again, and as a docker-entrypoint-initdb.d script.
CREATE EXTENSION IF NOT EXISTS vector;

DO $$
DECLARE
    extension text;
BEGIN
    FOR extension IN
        SELECT name
        FROM pg_available_extensions
        WHERE name IN ('uuid-ossp', 'btree_gin', 'btree_gist', 'pg_stat_statements', 'pg_trgm', 'unaccent')
        ORDER BY name
    LOOP
        EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I', extension);
    END LOOP;
END
$$;
