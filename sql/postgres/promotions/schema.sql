-- The decisions of the gate, one after the other: who decided when about which version of a model, by what, and which
-- alias moved. Nothing in it is changed or taken out.
CREATE TABLE IF NOT EXISTS ml_promotions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    decided_at timestamptz NOT NULL DEFAULT now(),
    decided_by text NOT NULL,
    model_name text NOT NULL,
    model_version text NOT NULL,
    promotable boolean NOT NULL,
    checks jsonb NOT NULL,
    evidence jsonb NOT NULL,
    alias text,
    moved_from text,
    notes text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS ml_promotions_model ON ml_promotions (model_name, id);
CREATE OR REPLACE FUNCTION ml_promotions_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ml_promotions holds decisions that were taken, and is only added to';
END
$$;
CREATE OR REPLACE TRIGGER ml_promotions_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON ml_promotions
FOR EACH STATEMENT EXECUTE FUNCTION ml_promotions_refuse();
