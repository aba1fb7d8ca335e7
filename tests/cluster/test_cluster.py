"""Runs on a Ray cluster of two nodes without a shared folder, while nodes, driver and MLflow die.

`make cluster-test` runs this; it takes minutes, and is skipped where Ray or PostgreSQL is missing.
"""

import collections
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psutil
import pytest
import torch

import benchmark
from benchmark import registry
from benchmark.cluster.connection import ClusterOptions, connected
from benchmark.cluster.fleet import Fleet
from benchmark.data.dataset import FaceSet
from benchmark.record import RunRecord, all_records
from benchmark.runs.plan import Settings
from benchmark.runs.run import Finished, Started, run_all
from benchmark.training.device import Device
from tests.cluster import machines
from tests.cluster.machines import HEAD_IP, NODE_IPS, kill_all, wait_until
from tests.runs import small

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
# Not imported here: Ray reads its settings then, and those of the cluster come later.
if not all(importlib.util.find_spec(package) for package in ("ray", "psycopg")):
    reason = "needs Ray and psycopg: pip install 'facebench[cluster]'"
    pytest.skip(reason, allow_module_level=True)
if machines.postgres_program() is None:
    pytest.skip("needs PostgreSQL: apt-get install postgresql", allow_module_level=True)

NAMES = ("mtl-cnn-none-full-demo-32px", "mtl-cnn-none-frozen-demo")
SEEDS = ",".join(map(str, range(20)))
N_RUNS = 40
EPOCHS = 25
EXACT = Device(torch.device("cpu"), "fp32", exact=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.RayCluster]:
    """Two nodes for one run each; those that a test kills are replaced by the next one."""
    made = machines.RayCluster(tmp_path_factory.mktemp("cluster"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.token.items():
            patch.setenv(name, value)
        try:
            for ip in (HEAD_IP, NODE_IPS[0]):
                made.start(ip)
            yield made
        finally:
            for ip in [*reversed(made.nodes)]:
                made.kill(ip)
            shutil.rmtree(made.session, ignore_errors=True)


@pytest.fixture(scope="module")
def database() -> Iterator[machines.Postgres]:
    server = machines.Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def mlflow_server(database: machines.Postgres, tmp_path: Path) -> Iterator[machines.MlflowServer]:
    server = machines.MlflowServer(database.address, tmp_path / "mlflow")
    try:
        server.start()
        yield server
    finally:
        server.stop()


PROGRAM = (sys.executable, "-c", "from benchmark.cli.main import main; main()")
REPORTING_OFTEN = """
import functools
from benchmark.cluster import connection
connection.ClusterOptions = functools.partial(connection.ClusterOptions, report_seconds=0.5)
"""


@contextlib.contextmanager
def driven(
    *words: str | Path, code: str = "", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a process of its own; at the end nothing of it is left."""
    driver = subprocess.Popen(
        [*PROGRAM[:2], code + PROGRAM[2], *map(str, words)], env=os.environ | environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield driver
    finally:
        kill_all(driver)


def settings(runs_dir: Path) -> Settings:
    return small.settings(runs_dir, device=EXACT, figures=False)


def on_drawn(data_dir: Path, runs_dir: Path) -> tuple[str | Path, ...]:
    return ("--dataset", "drawn", "--data-dir", data_dir, "--runs-dir", runs_dir)


def node_of(cluster: machines.RayCluster) -> str:
    """Give the address of the node beside the head; one that a test before killed is replaced."""
    for ip in cluster.nodes:
        if ip != HEAD_IP:
            return ip
    ip = NODE_IPS[len(list(cluster.folder.iterdir())) - 1]
    cluster.start(ip)
    return ip


def n_done(runs_dir: Path) -> int:
    return sum(record.state == "done" for record in all_records(runs_dir))


def test_forty_runs_survive_a_lost_node_a_killed_driver_and_restarted_services(
    cluster: machines.RayCluster, mlflow_server: machines.MlflowServer,
    database: machines.Postgres, drawn_data_dir: Path, drawn_faces: FaceSet, tmp_path: Path,
) -> None:  # fmt: skip
    runs_dir, local = tmp_path / "runs", tmp_path / "local"
    command = (
        "run", *NAMES, "--seeds", SEEDS, "--deterministic", "--on", cluster.address,
        *on_drawn(drawn_data_dir, runs_dir),
    )  # fmt: skip
    store = {"MLFLOW_TRACKING_URI": mlflow_server.address}

    with driven(*command, **store):
        wait_until(lambda: n_done(runs_dir) >= 6, "six runs", 300)
        cluster.kill(node_of(cluster))
        wait_until(lambda: n_done(runs_dir) >= 12, "six more runs on one node", 300)
    after_kill = n_done(runs_dir)
    assert 12 <= after_kill < N_RUNS
    node_of(cluster)
    with driven(*command, **store) as driver:
        wait_until(lambda: n_done(runs_dir) >= after_kill + 6, "runs of the second driver", 300)
        mlflow_server.stop()
        mlflow_server.start()
        wait_until(lambda: n_done(runs_dir) >= after_kill + 10, "runs after a restart", 300)
        database.restart(seconds_away=3)
        assert driver.wait(timeout=600) == 0
    done = [record for record in all_records(runs_dir) if record.state == "done"]
    assert len(done) == N_RUNS == len(list((runs_dir / "work").iterdir()))
    assert {record.about["attempt"] for record in done} == {1}
    assert not list(runs_dir.glob("work/*/checkpoint.pt"))

    imported = subprocess.run(
        [*PROGRAM, "runs", "import", "--runs-dir", str(runs_dir), "--json"],
        env=os.environ | store, capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(imported.stdout)["ok"]
    assert mlflow_runs(mlflow_server.address) == dict.fromkeys(
        (record.identity for record in done), 1
    )

    experiments = [registry.experiment(name) for name in NAMES]
    torch.set_num_threads(1)
    events = list(run_all(experiments, map(int, SEEDS.split(",")), drawn_faces, settings(local)))
    assert sum(isinstance(event, Finished) for event in events) == N_RUNS
    assert leaderboard(runs_dir, drawn_data_dir) == leaderboard(local, drawn_data_dir)


def mlflow_runs(address: str) -> dict[str, int]:
    """Count MLflow's runs that are finished, by identity."""
    from benchmark.tracking.notes import IDENTITY_TAG
    from benchmark.tracking.store import mlflow_module

    client = mlflow_module().MlflowClient(address)
    experiments = [item.experiment_id for item in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    return dict(collections.Counter(run.data.tags[IDENTITY_TAG] for run in runs))


def leaderboard(runs_dir: Path, data_dir: Path) -> list[dict[str, Any]]:
    """Give the leaderboard's rows as they are written; what a run cost differs each time."""
    with driven("leaderboard", "--suite", "demo", *on_drawn(data_dir, runs_dir)) as made:
        assert made.wait(timeout=300) == 0
    (path,) = (runs_dir / "leaderboards").glob("*.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    costs = [name for name in table if name.startswith(("seconds", "images", "peak", "cost"))]
    return list(table.drop(columns=costs).to_dict("records"))


def test_a_driver_that_is_told_to_stop_marks_its_runs_and_the_same_command_finishes_them(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    runs_dir, epochs = tmp_path / "runs", 60
    command = (
        "run", NAMES[0], "--seeds", "0,1", "--set", f"recipe.max_epochs={epochs}",
        *on_drawn(drawn_data_dir, runs_dir), "--tracking", "files", "--on", "ray",
    )  # fmt: skip
    with driven(*command, code=REPORTING_OFTEN) as driver:
        checkpoints = "work/*/checkpoint.pt"
        wait_until(lambda: len(list(runs_dir.glob(checkpoints))) == 2, "two runs under way")
        started = psutil.Process(driver.pid).children(recursive=True)
        driver.terminate()
        assert driver.wait(timeout=300) == 130
        assert not psutil.wait_procs(started, timeout=60)[1], "Ray's processes end with it"
    records = list(all_records(runs_dir))
    assert [record.state for record in records] == ["interrupted", "interrupted"]
    assert all((record.folder / "interrupted.json").is_file() for record in records)
    reached = {record.identity: len(record.history()) for record in records}
    with driven(*command, code=REPORTING_OFTEN) as driver:
        assert driver.wait(timeout=600) == 0
    for record in all_records(runs_dir):
        assert (record.state, record.about["attempt"]) == ("done", 1)
        assert record.history()["epoch"].tolist() == list(range(1, epochs + 1))
        assert 0 < reached.pop(record.identity) < epochs
    assert not reached


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_whose_node_dies_goes_on_elsewhere_from_its_last_report(
    cluster: machines.RayCluster, drawn_faces: FaceSet, tmp_path: Path, shared: bool
) -> None:
    experiment, seeds = small.an_experiment(max_epochs=EPOCHS), (0, 1)
    options = ClusterOptions(cluster.address, report_seconds=0.5, shared_runs=shared)
    node = node_of(cluster)
    where = settings(tmp_path / "runs")
    starts: dict[int, list[Started]] = {0: [], 1: []}
    done: dict[int, Finished] = {}
    killed = None
    with connected(options) as connection:
        fleet = Fleet(connection)
        for event in fleet.run_all([experiment], seeds, drawn_faces, where):
            if isinstance(event, Started):
                starts[event.plan.seed].append(event)
            elif isinstance(event, Finished):
                done[event.plan.seed] = event
            on_it = [of[0].plan for of in starts.values() if of and node in of[0].where]
            if killed is None and on_it and (on_it[0].folder / "checkpoint.pt").is_file():
                killed = on_it[0].seed
                cluster.kill(node)
    assert set(done) == {0, 1}
    assert [record.state for record in all_records(where.runs_dir)] == ["done", "done"]
    assert not shared or not [*(cluster.folder / node).glob("kept/run-*/work")], "written in place"
    assert killed is not None
    first, *_, last = starts[killed]
    assert first.epochs_done == 0
    assert last.epochs_done > 0
    assert HEAD_IP in last.where
    torch.set_num_threads(1)
    *_, same = run_all([experiment], (killed,), drawn_faces, settings(tmp_path / "local"))
    assert isinstance(same, Finished)
    here, there = (item.plan.folder / "model.safetensors" for item in (same, done[killed]))
    assert here.read_bytes() == there.read_bytes()
    record = done[killed].plan.record
    assert record.about["attempt"] == 1
    assert record.history()["epoch"].tolist() == list(range(1, EPOCHS + 1))


def test_twenty_trials_survive_a_killed_worker_and_a_restarted_database(
    cluster: machines.RayCluster, database: machines.Postgres, drawn_data_dir: Path, tmp_path: Path
) -> None:
    import psycopg

    # A database of Optuna's own: it and MLflow both keep their version in one table.
    with psycopg.connect(database.address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE studies")
    studies, node = f"{database.address.rpartition('/')[0]}/studies", node_of(cluster)
    command = (
        "tune", NAMES[0], "--trials", "20", "--only", "learning_rate", "--pruner", "none",
        "--set", "recipe.max_epochs=1", "--no-refit", "--on", cluster.address,
        *on_drawn(drawn_data_dir, tmp_path), "--tracking", "files",
    )  # fmt: skip
    with driven(*command, FACEBENCH_STORAGE=studies) as driver:
        wait_until(lambda: n_done(tmp_path) >= 5, "five trials", 300)
        cluster.kill(node)
        database.restart(seconds_away=3)
        assert driver.wait(timeout=600) == 0
    storage = optuna.storages.RDBStorage(studies)
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    storage.engine.dispose()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 20
    assert len({trial.user_attrs["run"] for trial in trials}) == 20
    for trial in trials:
        assert RunRecord(tmp_path / "work" / trial.user_attrs["run"]).state == "done"
        (epoch,) = trial.intermediate_values.values()
        assert trial.value == epoch


def test_what_no_node_can_do_is_refused_before_the_first_run(
    cluster: machines.RayCluster, drawn_data_dir: Path, tmp_path: Path
) -> None:
    runs_dir, other, last = tmp_path / "runs", tmp_path / "other", NODE_IPS[-1]

    def refused(*words: str) -> str:
        where = map(str, on_drawn(drawn_data_dir, runs_dir))
        ended = subprocess.run(
            [*PROGRAM, "run", NAMES[1], *where, "--on", cluster.address, *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert not (runs_dir / "work").exists()
        return ended.stderr

    assert "more than any node has" in refused("--gpus-per-run", "2")
    shutil.copytree(Path(benchmark.__file__).parent, other / "benchmark")
    with (other / "benchmark" / "tasks.py").open("a") as code:
        code.write("\n")
    cluster.start(last, PYTHONPATH=str(other))
    said = refused()
    cluster.kill(last)
    assert "1 of " in said
    assert f"({last}) has facebench" in said


def test_any_machine_can_be_the_driver_through_the_client_port(
    cluster: machines.RayCluster, drawn_data_dir: Path, tmp_path: Path
) -> None:
    words = ("run", NAMES[1], "--seeds", "0,1", *on_drawn(drawn_data_dir, tmp_path))
    address = f"ray://{HEAD_IP}:{cluster.client_port}"
    with driven(*words, "--tracking", "files", "--on", address) as driver:
        assert driver.wait(timeout=300) == 0
    assert [record.state for record in all_records(tmp_path)] == ["done", "done"]
