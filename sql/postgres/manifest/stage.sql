-- Takes the lines that the manifest shall have of what is being written.
CREATE TEMPORARY TABLE live (
    key text PRIMARY KEY,
    id text,
    partition text,
    vector bytea
) ON COMMIT DROP
