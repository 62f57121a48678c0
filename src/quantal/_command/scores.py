"""What a model predicts for rows, and how good that is, by scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
)

from quantal._command.datasets import MOST_CLASSES, Dataset
from quantal._command.errors import Unfit

Scores = dict[str, float | None]
"""Scores by their names; None for one that these rows do not have."""


def outputs_of(
    model: Any, rows: NDArray[np.float32], source: str, labels: Any
) -> NDArray[np.float64]:
    """Return probabilities of the classes, (rows, classes), or one number for each row, (rows, 1).

    Args:
        model: A Keras model from rows of numbers to probabilities, or to numbers.
        rows: The rows.
        source: The table's name, for messages.
        labels: The classes; None for a number.

    Raises:
        Unfit: A prediction is NaN or infinity.
    """
    outputs = np.asarray(model.predict(rows, verbose=0), np.float64)
    if not np.all(np.isfinite(outputs)):
        raise Unfit(
            f"The trained model predicts NaN or infinity on {source}. Expected finite "
            "numbers. Give a list of smaller values, or look for rows or columns of huge "
            "numbers in the data."
        )
    if labels is not None and outputs.shape[1] == 1:
        return np.concatenate([1 - outputs, outputs], axis=1)
    return outputs


def answers_of(outputs: NDArray[Any], labels: Any) -> NDArray[Any]:
    """Return the class, an integer, or the number that each row of outputs stands for."""
    return outputs[:, 0] if labels is None else outputs.argmax(axis=1)


def probability_columns(outputs: NDArray[Any], labels: Any) -> dict[str, NDArray[Any]]:
    """Return columns of probabilities by name: of each class, or of the answer where many."""
    if labels is None:
        return {}
    if len(labels) > MOST_CLASSES:
        return {"probability": outputs.max(axis=1)}
    columns = zip(labels, outputs.T, strict=True)
    return {f"probability_{label}": column for label, column in columns}


def scores_of(target: NDArray[Any], outputs: NDArray[Any], labels: Any) -> Scores:
    """Return the scores of predictions.

    Args:
        target: Classes as integers, or numbers, (rows,).
        outputs: What `outputs_of` returns.
        labels: The classes; None for a number.
    """
    answers = answers_of(outputs, labels)
    if labels is None:
        return {
            "R²": float(r2_score(target, answers)) if len(target) > 1 else None,
            "mean absolute error": float(mean_absolute_error(target, answers)),
        }
    present = np.unique(target)
    recalls = recall_score(target, answers, labels=present, average="macro")
    scores: Scores = {
        "accuracy": float(accuracy_score(target, answers)),
        "balanced accuracy": float(recalls),
    }
    if len(labels) == 2:
        # The second class is the positive one, as everywhere in scikit-learn.
        scores[f"F1 of {labels[1]}"] = float(f1_score(target, answers, zero_division=0.0))
    else:
        f1 = f1_score(target, answers, labels=present, average="macro", zero_division=0.0)
        scores["F1, mean of classes"] = float(f1)
    scores["area under ROC"] = _area(target, outputs, len(present))
    return scores


def _area(target: NDArray[Any], outputs: NDArray[Any], present: int) -> float | None:
    """Return the area under the ROC curve, of each class against the rest; None without all."""
    if present < outputs.shape[1]:
        return None
    if outputs.shape[1] == 2:
        return float(roc_auc_score(target, outputs[:, 1]))
    shares = outputs / outputs.sum(axis=1, keepdims=True)
    return float(roc_auc_score(target, shares, multi_class="ovr"))


def baseline_of(dataset: Dataset, rows: int) -> NDArray[np.float64]:
    """Return what one predicts without looking: the most frequent class, or the mean."""
    target = dataset.target[dataset.training]
    if dataset.labels is None:
        return np.full((rows, 1), np.mean(target))
    counts = np.bincount(target, minlength=len(dataset.labels))
    return np.tile(np.eye(len(counts))[counts.argmax()], (rows, 1))
