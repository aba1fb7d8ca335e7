"""The files under deploy/: what can be checked of them without Docker, Kubernetes or Slurm."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_docs import Quoted, check_that_the_program_takes

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = {
    item["kind"]: item for item in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
}


def test_every_service_is_waited_for_until_it_is_healthy() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        for other, condition in service.get("depends_on", {}).items():
            assert other in services
            assert condition == {"condition": "service_healthy"}, name
        mounts = {mount.split(":")[0] for mount in service.get("volumes", [])}
        files = {mount for mount in mounts if "/" in mount}
        assert mounts - files <= set(COMPOSE["volumes"]), name
        assert all((DEPLOY / mount).is_file() for mount in files), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_secret_is_in_the_files() -> None:
    secrets = ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN")
    text = (DEPLOY / "compose.yaml").read_text()
    for name in secrets:
        for line in (line for line in text.splitlines() if name in line):
            assert f"${{{name}:?" in line, line
    example = (DEPLOY / ".env.example").read_text().splitlines()
    assert {f"{name}=" for name in secrets} <= set(example)
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert not re.search(r"password|token", (DEPLOY / "kuberay.yaml").read_text(), re.IGNORECASE)


def test_the_manifests_have_the_fields_that_kuberay_knows() -> None:
    assert list(MANIFESTS) == ["PersistentVolumeClaim", "RayCluster", "RayJob"]
    cluster, job = MANIFESTS["RayCluster"], MANIFESTS["RayJob"]
    assert {cluster["apiVersion"], job["apiVersion"]} == {"ray.io/v1"}
    assert set(cluster["spec"]) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert set(job["spec"]) == {"entrypoint", "clusterSelector"}
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    head, workers = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    fields = {"rayStartParams", "template"}
    own = {"groupName", "replicas", "minReplicas", "maxReplicas"}
    assert set(head) == fields
    assert all(set(group) == fields | own for group in workers)
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        (container,) = pod["containers"]
        assert container["image"] == container["envFrom"][0]["secretRef"]["name"] == "facebench"
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes


def test_commands_in_the_files_are_ones_that_the_program_takes() -> None:
    assert os.access(DEPLOY / "slurm.sh", os.X_OK)
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)
    script = (DEPLOY / "slurm.sh").read_text()
    in_script = next(line for line in script.splitlines() if line.startswith("facebench run"))
    in_example = re.search(r"slurm\.sh (--suite .*)", script)
    assert in_example is not None
    lines = [
        MANIFESTS["RayJob"]["spec"]["entrypoint"],
        in_script.replace('"$@"', in_example[1]).removesuffix(" &"),
        *re.findall(r"exec ray-head (facebench .*)", (DEPLOY / "README.md").read_text()),
    ]
    assert len(lines) >= 7
    for line in lines:
        words = tuple(shlex.split(line))
        check_that_the_program_takes(Quoted("deploy", words, is_block=True))


SRUN = """#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do shift; done
exec "$@"
"""
DRIVER = """
import signal, sys, time
import ray
ray.init("auto", log_to_driver=False)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
try:
    print("driver", *sys.argv[1:], len(ray.nodes()), ray.cluster_resources()["CPU"], flush=True)
    time.sleep(SECONDS)
finally:
    print("driver ends")
"""


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True], ids=["to its end", "time is over"])
def test_the_slurm_script_runs_on_one_node(tmp_path: Path, stopped: bool) -> None:
    """With srun and scontrol that do on this machine what Slurm does on another."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'facebench[cluster]'")
    driver = f"#!{sys.executable}\n{DRIVER}".replace("SECONDS", "600" if stopped else "0")
    programs = {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost\n", "facebench": driver}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": "2",
    }
    words = ["bash", DEPLOY / "slurm.sh", "--suite", "demo"]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(words, stdout=pipe, stderr=both, text=True, env=environment) as job:
        assert job.stdout is not None
        line = next(line for line in job.stdout if line.startswith("driver"))
        assert line.split() == ["driver", "run", "--suite", "demo", "--on", "auto", "1", "2.0"]
        if stopped:
            job.terminate()
        rest = job.stdout.read()
    assert job.returncode == (143 if stopped else 0), rest
    assert "driver ends" in rest
    port = 20000 + os.getpid() % 20000
    assert f":{port}" not in subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
