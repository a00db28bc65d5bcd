"""What `ml-assets runs similar` prints."""

from ml_assets.cli.command import Form
from ml_assets.settings import Settings
from ml_assets.stack import Stack

_COLUMNS = ("run_id", "score", "title", "experiment", "model_name", "dataset", "status")


def similar(
    settings: Settings, run_id: str | None, text: str | None, k: int, where: str | None, form: Form
) -> None:
    """Print the nearest runs."""
    found = Stack(settings).experiments.similar(run_id, text, k, where)
    if form == "json":
        import orjson

        print(orjson.dumps(found).decode())
        return
    import pyarrow as pa

    from ml_assets.cli.data import print_table

    columns = (*_COLUMNS, "metrics", "parameters") if form == "csv" else _COLUMNS
    rows = [{name: _cell(run[name], form) for name in columns} for run in found]
    kinds = {"score": pa.float64()}
    print_table(
        pa.Table.from_pylist(rows, pa.schema([(name, kinds.get(name, pa.string())) for name in columns])),
        form,
    )


def _cell(value: object, form: Form) -> object:
    if isinstance(value, float) and form == "table":
        return round(value, 4)
    if value is None or isinstance(value, str | float):
        return value
    import orjson

    return orjson.dumps(value).decode()
