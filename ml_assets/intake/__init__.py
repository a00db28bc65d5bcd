"""Intake: from files and MLflow to rows of `intake.intake_<stream>`, with an account of every row.

    input_files.py     which files there are, and which of them are complete
    splitter.py        a file's bytes as rows of text, whatever is wrong with them
    judge.py           rows as typed columns, or the reason why not (SQL made from the stream's contract)
    mlflow_reader.py   MLflow runs and metric histories as rows
    ledger.py          what was taken in, in PostgreSQL
    sources.py         foreign files, each read by one SELECT
    files.py           files into intake
    tracking.py        MLflow into intake
    ingest.py          the protocol that makes lake and ledger agree, whatever is killed when
    raw.py             raw tables as queries over intake

    due.py             what is new, and which days and tables are due

Nothing here imports dagster.
"""
