-- The ledger: what was taken in from where, beside the lake so that it commits with the catalog's server.
CREATE SCHEMA IF NOT EXISTS ledger;
