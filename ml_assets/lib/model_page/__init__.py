"""A model as one HTML page that asks nothing of any network.

    facts.py        what is known of a model
    page.py         the page, and the figures at its top
    quality.py      quality and latency by day, versions
    episodes.py     when the model became worse
    drift.py        features by day, as a heat map
    calibration.py  confidence against right answers, and the accuracy that it promises before labels come
    parts.py        tables, and sentences in place of what is not known

What belongs here: rows in, a page out. What does not: reading stores, and the files of style and script, which are
handed in. Charts and tables stand in the page and are read without the script, which reads out the day below the
pointer. What was never looked at is told in a sentence, so that silence is no good news.
"""
