"""The bundles that are served: US-MobileNet v1 at random weights and all its widths, and the digits network, trained, with the
accuracy of every width measured. Made by commands of their own, so that no torch is loaded where latencies are measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from slimexport.target.manifest import MANIFEST
from slimtrain.base.errors import CommandError
from slimtrain.models.published import RANDOM

NETWORK = "us_mobilenet_v1"
DIGITS_WIDTHS = "0.25:1.0:0.05"
SHOWN = 2000  # letters of what a failed command said


def published_bundle(folder: Path, given: Path | None = None, widths: str = "all") -> Path:
    """A bundle of the published network, below `folder` unless one is given. CommandError."""
    if given is not None:
        return given
    bundle = folder / NETWORK
    print(f"exporting {NETWORK}, {widths} widths", file=sys.stderr, flush=True)
    _run("slimexport", "--ckpt", f"{RANDOM}{NETWORK}", "--widths", widths, "--output-dir", str(bundle))
    return bundle


def digits_bundle(folder: Path, given: Path | None = None) -> Path:
    """A bundle of the digits network with measured accuracies: the one at `given`, or exported from the checkpoint there, or
    from one that is trained. CommandError."""
    if given is not None and (given / MANIFEST).exists():
        return given
    checkpoint = given
    if checkpoint is None:
        print("training on the digits", file=sys.stderr, flush=True)
        _run("slimtrain", "train", "digits", "--output-dir", str(folder / "digits"))
        checkpoint = folder / "digits" / "us_mbv1.pt"
    bundle = folder / "exports" / "digits"
    print("exporting the digits network", file=sys.stderr, flush=True)
    data = ["--calibration-data", "digits", "--accuracy-data", "digits"]
    words = ["--widths", DIGITS_WIDTHS, *data, "--output-dir", str(bundle)]
    _run("slimexport", "--ckpt", str(checkpoint), *words)
    return bundle


def _run(module: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{module} {words[0]} failed:\n{done.stderr.strip()[-SHOWN:]}", done.returncode)
