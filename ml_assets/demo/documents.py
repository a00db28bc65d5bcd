"""Documents of the demo: what scikit-learn says of its datasets and estimators, and the notes of the runs.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import inspect
from collections.abc import Iterable, Iterator
from datetime import datetime

import sklearn
from sklearn import datasets, ensemble, linear_model, naive_bayes, neighbors, neural_network, svm

from ml_assets.demo.record import RunRecord

DATASETS = ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud")

ESTIMATORS = (
    ensemble.GradientBoostingClassifier,
    ensemble.RandomForestClassifier,
    linear_model.LogisticRegression,
    linear_model.Ridge,
    linear_model.SGDClassifier,
    naive_bayes.GaussianNB,
    neighbors.KNeighborsClassifier,
    neural_network.MLPClassifier,
    svm.SVC,
)


def library_documents(updated_at: datetime) -> Iterator[dict]:
    """Descriptions of datasets and estimators as the installed scikit-learn holds them."""
    source = f"scikit-learn {sklearn.__version__}"
    for name in DATASETS:
        description = getattr(datasets, f"load_{name}")().DESCR
        yield _document(
            f"dataset:{name}", f"The {name} dataset", description, source, updated_at, kind="dataset"
        )
    for estimator in ESTIMATORS:
        name = estimator.__name__
        text = inspect.getdoc(estimator) or ""
        yield _document(
            f"estimator:{name}", name, text, source, updated_at, kind="estimator", module=estimator.__module__
        )


def note_documents(records: Iterable[tuple[str, RunRecord]]) -> Iterator[dict]:
    """The notes of runs, given with their run ids."""
    for run_id, record in records:
        yield _document(
            note_id(record),
            note_title(record),
            record.notes,
            "run notes",
            record.completed_at,
            kind="note",
            run_id=run_id,
            dataset=record.dataset,
            model_type=record.model_type,
            status=record.status,
        )


def note_id(record: RunRecord) -> str:
    """The id of the document that a run's notes are."""
    return _id(f"note:{record.key}")


def note_title(record: RunRecord) -> str:
    """Its title, which notes of the same trial on other days have, too."""
    return f"Notes on {record.name}"


def _id(key: str) -> str:
    return key.replace(" ", "-")


def _document(key: str, title: str, text: str, source: str, updated_at: datetime, **metadata: str) -> dict:
    return {
        "document_id": _id(key),
        "title": title,
        "text": text,
        "source": source,
        "metadata": metadata,
        "updated_at": updated_at,
    }
