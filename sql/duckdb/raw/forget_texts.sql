-- Rows in quarantine of these contents (`hashes`), without the text that they came as; place and reason stay.
UPDATE lake.intake.{table}
SET raw_text = NULL
WHERE quarantine_reason IS NOT NULL
    AND raw_text IS NOT NULL
    AND unit_hash IN (SELECT unnest($hashes::VARCHAR[]))
