"""The test faces a network is most sure of and wrong about: mistakes, or wrong labels."""

from typing import Final

import pandas as pd

from benchmark.results.predictions import predicted_tasks
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
        names = CLASS_NAMES[task]
        table = pd.DataFrame(
            {
                "task": task,
                "file": wrong["file"],
                "truth": [names[label] for label in wrong[task]],
                "predicted": [names[label] for label in wrong[f"{task}_pred"]],
                "probability": [
                    row[f"{task}_p{row[f'{task}_pred']}"] for _, row in wrong.iterrows()
                ],
                "probability_of_label": [
                    row[f"{task}_p{row[task]}"] for _, row in wrong.iterrows()
                ],
            }
        )
        surest = table.sort_values(["probability", "file"], ascending=[False, True])
        tables.append(surest.head(MISTAKES_PER_TASK))
    return pd.concat(tables, ignore_index=True)
