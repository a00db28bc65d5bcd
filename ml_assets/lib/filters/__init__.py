"""The filter language of searches: text to a tree, and the tree to what each store understands.

    fields.py     what can be asked for: attributes, metrics, parameters, tags
    tree.py       the tree that a filter is
    parse.py      text to tree, and the sentence for text that is none
    normal.py     when two texts are alike
    evaluate.py   the tree in plain Python: what it means
    postgres.py   the tree in PostgreSQL's SQL, with bound values, and the pages of a search
    duckdb.py     comparisons of a metric at a step, in DuckDB's SQL

The logic has two values: a comparison with what a run does not have is false, and NOT of it is true.
"""
