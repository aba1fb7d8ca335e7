"""Where converted weights lie. Without torch: a table of what is missing must not wait for it."""

from pathlib import Path


def stored_path(architecture: str, source: str, weights_dir: Path) -> Path:
    """Say where the converted file of a source belongs; a colon is no part of a file's name."""
    return weights_dir / f"{architecture}-{source.replace(':', '-')}.safetensors"
