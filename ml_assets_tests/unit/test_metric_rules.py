import math
import re

import pytest

from ml_assets.lib.metric_rules import NAMES, MetricRules, PrimaryMetric
from ml_assets.settings import PROJECT_ROOT

RULES = MetricRules()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("accuracy", "accuracy"),
        ("acc", "accuracy"),
        ("Accuracy", "accuracy"),
        ("val_accuracy", "accuracy"),
        ("val/acc_epoch", "accuracy"),
        ("val_sparse_categorical_accuracy", "accuracy"),
        ("f1", "f1_score"),
        ("eval/f1", "f1_score"),
        ("f1-score", "f1_score"),
        ("test.macro_f1", "f1_score"),
        ("eval_loss", "loss"),
        ("valid_0-auc", "roc_auc"),
        ("validation_0-logloss", "log_loss"),
        ("test-rmse-mean", "rmse"),
        ("val_root_mean_squared_error", "rmse"),
        ("val_mean_squared_error", "mse"),
        ("mean_absolute_error", "mae"),
        ("final_r2_score", "r2"),
        ("train_accuracy", "train_accuracy"),
        ("training_log_loss", "train_log_loss"),
        ("accuracy_train", "train_accuracy"),
        ("bleu", "bleu"),
        ("eval/BLEU", "bleu"),
        ("hp_metric", "hp_metric"),
        ("précision du modèle", "précision_du_modèle"),
        ("test", "test"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_a_key_is_known_under_its_canonical_name(key, name):
    assert RULES.canonical(key) == name


def test_canonical_names_are_their_own():
    assert [RULES.canonical(name) for name in NAMES] == list(NAMES)
    others = [other for names in NAMES.values() for other in names]
    assert len(others) == len(set(others)) and not set(others) & NAMES.keys()


@pytest.mark.parametrize(
    ("metrics", "primary"),
    [
        ({"accuracy": 0.9, "loss": 0.2}, ("accuracy", 0.9, True)),
        ({"rmse": 3.5}, ("rmse", 3.5, False)),
        ({"mae": 1.0, "rmse": 2.0, "r2": 0.4}, ("r2", 0.4, True)),
        # Held-out rows before the others, whatever comes first in the alphabet.
        ({"accuracy": 0.99, "val_accuracy": 0.8, "test_accuracy": 0.7}, ("val_accuracy", 0.8, True)),
        ({"accuracy": 0.99, "test_accuracy": 0.7}, ("test_accuracy", 0.7, True)),
        ({"train_accuracy": 0.99, "val_loss": 0.5}, ("val_loss", 0.5, False)),
        ({"train_accuracy": 0.99, "train_loss": 0.5}, ("train_accuracy", 0.99, True)),
        # As the demo logs them, of classifiers and of regressions.
        (
            {
                "loss": 0.1,
                "train_accuracy": 0.99,
                "val_loss": 0.3,
                "accuracy": 0.9,
                "f1_score": 0.8,
                "memory_usage_mb": 9,
            },
            ("accuracy", 0.9, True),
        ),
        ({"loss": 3e3, "val_loss": 3e3, "mae": 44.0, "rmse": 55.0, "r2": 0.4}, ("r2", 0.4, True)),
        # As Hugging Face's trainer and Keras log them.
        (
            {
                "epoch": 3,
                "eval_runtime": 9.0,
                "eval_samples_per_second": 80.0,
                "eval_loss": 0.4,
                "train_loss": 0.2,
            },
            ("eval_loss", 0.4, False),
        ),
        ({"loss": 0.1, "auc": 0.9, "val_auc": 0.8}, ("val_auc", 0.8, True)),
        # Unknown names by the alphabet, but for those of time, size, progress and machine.
        ({"bleu": 31.0, "chrf": 50.0, "a_duration_s": 3.0, "system/cpu": 3}, ("bleu", 31.0, True)),
        ({"zeta_error": 3.0, "grad_norm": 1, "learning_rate": 0.1}, ("zeta_error", 3.0, False)),
        ({"test-rmse-std": 0.1, "test-rmse-mean": 2.0}, ("test-rmse-mean", 2.0, False)),
        # A known name of training rows says more than an unknown one.
        ({"hp_metric": -1, "train_loss": 0.4}, ("train_loss", 0.4, False)),
        ({"logloss": 0.3}, ("logloss", 0.3, False)),
        # What is no number is no value.
        ({"accuracy": None, "f1": "good", "roc_auc": True, "mae": "2.5"}, ("mae", 2.5, False)),
        ({"accuracy": math.inf}, ("accuracy", math.inf, True)),
        ({"accuracy": 10**400, "mae": 1}, ("mae", 1.0, False)),
    ],
)
def test_a_run_is_judged_by_the_first_known_metric(metrics, primary):
    assert RULES.primary(metrics) == primary


@pytest.mark.parametrize("metrics", [{}, {"memory_usage_mb": 300.0, "epoch": 3}, {"loss": None}])
def test_a_run_without_a_metric_of_quality_is_judged_by_none(metrics):
    assert RULES.primary(metrics) is None


def test_a_run_that_diverged_is_judged_by_what_diverged():
    found = RULES.primary({"accuracy": "NaN", "f1": 0.5})
    assert found and found[0] == "accuracy" and math.isnan(found[1])


SAID = MetricRules(
    directions={"regret": "min", "wer": "min"},
    synonyms={
        "score": "accuracy",
        "held": "train_loss",
        "seconds_to_first_token": "ttft",
        "eval/score": "f1",
    },
    of_dataset={"diabetes": PrimaryMetric("rmse"), "speech": PrimaryMetric("eval/wer")},
    of_experiment={"mine": PrimaryMetric("loss", "max"), "odd": PrimaryMetric("epoch")},
)


@pytest.mark.parametrize(
    ("key", "name", "higher"),
    [
        ("score", "accuracy", True),
        ("eval/score", "f1_score", True),
        ("held", "train_loss", False),
        ("seconds_to_first_token", "ttft", True),
        ("regret", "regret", False),
        ("eval/wer", "wer", False),
    ],
)
def test_what_is_said_of_a_key_comes_before_its_words(key, name, higher):
    assert (SAID.canonical(key), SAID.higher_is_better(key)) == (name, higher)


@pytest.mark.parametrize(
    ("experiment", "dataset", "metrics", "primary"),
    [
        ("e", "diabetes", {"r2": 0.4, "rmse": 2.0, "val_rmse": 3.0}, ("rmse", 2.0, False)),
        ("e", "diabetes", {"r2": 0.4, "val_rmse": 3.0, "test_rmse": 4.0}, ("val_rmse", 3.0, False)),
        # The dataset's comes before the experiment's, and the usual rule after both.
        ("mine", "diabetes", {"rmse": 2.0, "loss": 1.0}, ("rmse", 2.0, False)),
        ("mine", "diabetes", {"r2": 0.4, "loss": 1.0}, ("loss", 1.0, True)),
        ("mine", None, {"accuracy": 0.4, "val_loss": 1.0}, ("val_loss", 1.0, True)),
        ("mine", "diabetes", {"accuracy": 0.4}, ("accuracy", 0.4, True)),
        ("e", "speech", {"accuracy": 0.4, "wer": 1.0}, ("wer", 1.0, False)),
        ("odd", None, {"accuracy": 0.4, "epoch": 7}, ("epoch", 7.0, True)),
        ("e", None, {"score": 0.3, "loss": 1}, ("score", 0.3, True)),
        ("e", None, {"seconds_to_first_token": 0.3, "zz": 1}, ("seconds_to_first_token", 0.3, True)),
    ],
)
def test_what_is_said_of_a_dataset_or_an_experiment_judges_its_runs(experiment, dataset, metrics, primary):
    assert SAID.primary(metrics, experiment, dataset) == primary


def test_the_relation_ranks_every_key_for_all_runs_and_before_that_for_those_that_name_it():
    table = SAID.table(["rmse", "accuracy", "loss", "epoch", "rmse"]).to_pylist()
    assert [(row["key"], row["dataset"], row["experiment"], row["rank"]) for row in table] == [
        ("rmse", "diabetes", None, 0),
        ("loss", None, "mine", 1),
        ("epoch", None, "odd", 2),
        ("accuracy", None, None, 3),
        ("rmse", None, None, 4),
        ("loss", None, None, 5),
    ]
    assert [row["higher_is_better"] for row in table] == [False, True, True, True, False, False]
    assert MetricRules().table([]).num_rows == 0


def test_directions_go_by_words():
    keys = ["val_loss", "eval/rmse", "flawless", "top5_error", "bleu", "cross_entropy", "inference_time_ms"]
    assert [RULES.higher_is_better(key) for key in keys] == [False, False, True, False, True, False, False]


def test_the_page_has_the_names_in_their_order():
    page = (PROJECT_ROOT / "docs" / "metrics.md").read_text()
    rows = [re.findall(r"`(\w+)`", line) for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert rows == [[name, *others] for name, others in NAMES.items()]
