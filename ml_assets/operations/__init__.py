"""Operations: the verbs of the project, one module a subject, for notebooks, scripts, the command line and assets.

What belongs here: what a person would do with the tables. What does not: words on a screen, and Dagster.
"""
