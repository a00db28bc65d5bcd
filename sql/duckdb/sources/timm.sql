-- stream: performance
-- glob: timm/benchmark-infer-*.csv
--
-- Inference speed of image models (huggingface/pytorch-image-models), one file a PyTorch version; the order of
-- the columns differs between files. `infer_step_time` is milliseconds for a batch. The files hold no times: an
-- event stands on the day on which its PyTorch was released. A version that is not named here is quarantined.
WITH measured AS (
    SELECT *, regexp_extract(filename, '-pt(\d+)-', 1) AS pytorch
    FROM read_csv($file, all_varchar = true, header = true, filename = true)
)
SELECT
    concat_ws('/', 'timm', model, infer_img_size, 'pt' || pytorch) AS event_id,
    'inference' AS kind,
    CASE pytorch
        WHEN '113' THEN TIMESTAMPTZ '2022-10-28 00:00:00+00'
        WHEN '210' THEN TIMESTAMPTZ '2023-10-04 00:00:00+00'
        WHEN '240' THEN TIMESTAMPTZ '2024-07-24 00:00:00+00'
    END AS timestamp,
    model AS model_name,
    'pytorch ' || pytorch AS model_version,
    'timm' AS experiment,
    infer_step_time AS inference_time_ms,
    infer_batch_size AS batch_size
FROM measured
