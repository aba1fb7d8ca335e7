"""The test faces a network is most sure of and wrong about: mistakes, or wrong labels."""

from typing import Final

import numpy as np
import pandas as pd

from benchmark.results.predictions import predicted_tasks, probability_columns
from benchmark.tasks import CLASS_NAMES

MISTAKES_PER_TASK: Final = 50


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the most confident mistakes per task, surest first.

    Returns task, file, truth, predicted (class names), probability of the predicted class and of
    the label, in [0, 1]. Only test faces; at most MISTAKES_PER_TASK per task.
    """
    test = predictions[predictions["part"] == "test"]
    tables = []
    for task in predicted_tasks(predictions):
        wrong = test[test[f"{task}_pred"] != test[task]]
        names = np.array(CLASS_NAMES[task])
        probabilities = wrong[probability_columns(task)].to_numpy()
        rows = np.arange(len(wrong))
        truth, predicted = wrong[task].to_numpy(), wrong[f"{task}_pred"].to_numpy()
        table = pd.DataFrame(
            {
                "task": task,
                "file": wrong["file"].to_numpy(),
                "truth": names[truth],
                "predicted": names[predicted],
                "probability": probabilities[rows, predicted],
                "probability_of_label": probabilities[rows, truth],
            }
        )
        surest = table.sort_values(["probability", "file"], ascending=[False, True])
        tables.append(surest.head(MISTAKES_PER_TASK))
    return pd.concat(tables, ignore_index=True)
