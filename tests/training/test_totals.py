"""What an epoch adds up to, by hand-worked numbers."""

import pytest
import torch

from benchmark.training.losses import Answer
from benchmark.training.steps import Totals


def an_answer(loss: float, hits: list[int], n_faces: int) -> Answer:
    return Answer(torch.tensor(loss, requires_grad=True), torch.tensor(hits), n_faces).detached()


def test_batches_count_by_their_faces_and_each_epoch_begins_anew() -> None:
    totals = Totals(("gender", "race"), torch.device("cpu"))
    assert totals.n_images == 0
    for _ in range(2):
        totals.reset()
        assert totals.mean_loss() == 0.0
        totals.add(an_answer(2.0, [3, 1], 4))
        totals.add(an_answer(0.5, [2, 0], 2))
        totals.n_images += 6
        # (2 x 4 + 0.5 x 2) / 6, and 5 and 1 of 6.
        assert totals.mean_loss() == pytest.approx(1.5)
        assert totals.accuracies() == {"gender": pytest.approx(5 / 6), "race": pytest.approx(1 / 6)}


def test_what_is_kept_of_an_answer_leads_back_to_no_activations() -> None:
    answer = an_answer(1.0, [1], 1)
    assert not answer.loss.requires_grad
    assert (answer.hits.tolist(), answer.n_faces) == ([1], 1)
