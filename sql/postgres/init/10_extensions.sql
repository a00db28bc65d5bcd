-- The extensions of the project. vector is required; of the others, whichever the server offers. The embedded server
-- has all but uuid-ossp, in whose place gen_random_uuid() and uuidv7() are built in. Safe to run again, and as a
-- docker-entrypoint-initdb.d script.
CREATE EXTENSION IF NOT EXISTS vector;

DO $$
DECLARE
    extension record;
BEGIN
    FOR extension IN
        SELECT name
        FROM pg_available_extensions
        WHERE name IN ('uuid-ossp', 'btree_gin', 'btree_gist', 'pg_stat_statements', 'pg_trgm', 'unaccent')
        ORDER BY name
    LOOP
        EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I', extension.name);
    END LOOP;
    -- A database of a former release has extensions of a former release.
    FOR extension IN
        SELECT name, default_version
        FROM pg_available_extensions
        WHERE name IN ('vector', 'uuid-ossp', 'btree_gin', 'btree_gist', 'pg_stat_statements', 'pg_trgm', 'unaccent')
            AND EXISTS (
                SELECT
                FROM pg_extension_update_paths(name)
                WHERE source = installed_version AND target = default_version AND path IS NOT NULL
            )
        ORDER BY name
    LOOP
        EXECUTE format('ALTER EXTENSION %I UPDATE TO %L', extension.name, extension.default_version);
    END LOOP;
END
$$;
