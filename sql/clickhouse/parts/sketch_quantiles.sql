-- The quantiles qs of a histogram of performance_sketches.sql, (bins, counts): of the two order statistics that an exact
-- one is interpolated between, each is put where its bin's ends are equally far off, and within what was seen.
(histogram, rank) -> histogram.1[arrayFirstIndex(n -> n > rank, arrayCumSum(histogram.2))] AS bin_of,
(bin, lowest, highest) -> greatest(lowest, least(highest, exp(bin / 100) * 2 / (1 + exp(0.01)))) AS value_of,
(low, high, part) -> if(part = 0 OR low = high, low, low + part * (high - low)) AS between_values,
(histogram, lowest, highest, qs) -> arrayMap(
    at -> if(
        empty(histogram.1),
        NULL,
        between_values(
            value_of(bin_of(histogram, floor(at)), lowest, highest),
            value_of(bin_of(histogram, ceil(at)), lowest, highest),
            at - floor(at)
        )
    ),
    arrayMap(q -> (arraySum(histogram.2) - 1) * q, qs)
) AS sketch_quantiles
