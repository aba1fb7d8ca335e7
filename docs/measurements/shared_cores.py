"""What does waiting passively cost on quiet cores, and what does it save on shared ones?

    python docs/measurements/shared_cores.py

Trains the small CNN on noise, forty steps of 32 faces at 100 px, each time in a process of its own,
with OMP_WAIT_POLICY active (threads spin while they wait for each other) and passive, without and
with one other process that keeps a core busy. Prints images per second: median of three.
"""

import os
import statistics
import subprocess
import sys
import time

N_STEPS, N_WARM_UP, N_REPEATS, BATCH = 40, 5, 3, 32
BUSY_SECONDS = 600
BUSY = f"import time; end = time.time() + {BUSY_SECONDS}\nwhile time.time() < end: pass"


def train() -> None:
    """Train in this process and print images per second."""
    import torch

    from benchmark import registry
    from benchmark.models.network import build_network
    from benchmark.training.device import choose_device
    from benchmark.training.losses import weighted_cross_entropy
    from benchmark.training.trainer import start

    experiment, device = registry.experiment("mtl-cnn-none-full-short"), choose_device("cpu")
    state = start(build_network(experiment, None, seed=0), experiment.recipe, device)
    images = torch.randint(0, 256, (BATCH, 100, 100, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    truths = {task: torch.randint(0, 2, (BATCH,)) for task in experiment.head.tasks}
    state.network.train()
    started = 0.0
    for step in range(N_WARM_UP + N_STEPS):
        if step == N_WARM_UP:
            started = time.perf_counter()
        with device.autocast():
            logits = state.network(images)
        loss = weighted_cross_entropy(logits, truths, experiment.recipe.loss_weights)
        state.optimiser.zero_grad()
        loss.backward()
        state.optimiser.step()
    print(BATCH * N_STEPS / (time.perf_counter() - started))


def images_per_second(policy: str) -> float:
    """Train in a process of its own under a wait policy."""
    answer = subprocess.run(
        [sys.executable, __file__, "train"],
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout)


def main() -> None:
    """Print a row per number of other processes and policy."""
    print(f"{os.cpu_count()} cores\nothers busy  policy   images/s (lowest to highest)")
    for n_others in (0, 1):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_others)]
        try:
            for policy in ("active", "passive"):
                rates = [images_per_second(policy) for _ in range(N_REPEATS)]
                spread = f"({min(rates):.0f} to {max(rates):.0f})"
                print(f"{n_others:>11}  {policy:<8} {statistics.median(rates):>5.0f} {spread}")
        finally:
            for other in others:
                other.kill()
                other.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["train"]:
        train()
    else:
        main()
