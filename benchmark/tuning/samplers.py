"""Who proposes the next point, and who gives a trial up.

A sampler is made anew for every trial, from the study's seed and the trial's number: Optuna keeps
no random state, so that one that lived as long as its process would propose the same first points
again after a restart, and two processes would propose the same ones at the same time.
"""

import hashlib
import warnings

import optuna

N_RANDOM = 6
"""Trials before a model of the earlier ones proposes. Optuna's own number is ten, a third of a
search of thirty: docs/TUNING.md says what a planted problem made of both."""


def new_sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that proposes trial `number` of a study.

    `gp`: a Gaussian process; `tpe`: Parzen trees over all parameters together; `random`.
    """
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=own_seed)
    if kind == "gp":
        return optuna.samplers.GPSampler(
            seed=own_seed, n_startup_trials=N_RANDOM, deterministic_objective=False
        )
    return optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=N_RANDOM, multivariate=True)


def new_pruner(kind: str, max_epochs: int) -> optuna.pruners.BasePruner:
    """Make what gives trials up: `median` of the earlier ones at that epoch, `hyperband`, `none`.

    The first quarter of the epochs, and the first five trials, are never given up.
    """
    if kind == "none":
        return optuna.pruners.NopPruner()
    if kind == "hyperband":
        lowest = min(3, max_epochs)
        return optuna.pruners.HyperbandPruner(
            min_resource=lowest, max_resource=max_epochs, reduction_factor=3
        )
    return optuna.pruners.MedianPruner(
        n_startup_trials=5, n_warmup_steps=max(1, max_epochs // 4), n_min_trials=3
    )


def quiet() -> None:
    """Let Optuna say nothing by itself: what happens is yielded, and shown by who reads it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
