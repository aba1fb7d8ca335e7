"""Where a number comes from: code version, package versions and platform; no secrets, no names."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Final

from benchmark import __version__

NAMED_PACKAGES: Final = ("torch", "torchvision", "timm", "mlflow", "numpy", "pillow", "pandas")


def versions() -> dict[str, str]:
    """Give the versions that a table may have to show; an absent package is left out."""
    found = {"python": platform.python_version(), "facebench": __version__}
    for package in NAMED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Give the git commit of the code, `-dirty` where it was changed; else the package version."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return f"v{__version__}"
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return f"v{__version__}"
    return f"{head}-dirty" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return answer.stdout.strip()


def environment() -> str:
    """List the platform and every installed package, one a line; the host's name is left out."""
    lines = [
        f"python {platform.python_version()} ({platform.python_implementation()})",
        f"platform {platform.system()} {platform.release()} {platform.machine()}",
        f"commit {commit()}",
        "",
    ]
    # A distribution's direct URL may hold a private path or token: names and versions only.
    packages = {item.metadata["Name"]: item.version for item in distributions()}
    lines += [f"{name}=={packages[name]}" for name in sorted(packages, key=str.lower)]
    return "\n".join(lines) + "\n"
