"""What an option that does not exist was to be: other spellings, and words that other tools use for the same thing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

MOST = 3
# Words for one thing. Which of them a command has differs: only those are suggested.
SYNONYMS = (
    ("ckpt", "checkpoint", "weights", "model", "model-path", "pretrained", "load"),
    ("image-size", "size", "img", "img-size", "imgsz", "input-size", "resolution", "crop-size"),
    ("output-dir", "output", "out", "out-dir", "outdir", "log-dir", "save-dir", "dest", "destination"),
    ("batch-size", "batch", "batches", "batchsize", "bs", "mini-batch", "batch-size-per-gpu"),
    ("batch-size", "calibration-batch-size"),
    ("lr", "learning-rate", "base-lr", "lr0", "init-lr"),
    ("epochs", "epoch", "num-epochs", "max-epochs", "n-epochs"),
    ("weight-decay", "wd"),
    ("schedule", "lr-scheduler", "scheduler"),
    ("warmup-epochs", "warmup"),
    ("seed", "random-seed"),
    ("classes", "num-classes"),
    ("data", "dataset"),
    ("pretrained", "checkpoint", "ckpt", "weights-path"),
    ("test-widths", "widths"),
    ("data-dir", "data", "data-path", "dataset-dir", "dataset", "root", "images"),
    ("workers", "num-workers", "data-loader-workers", "jobs", "processes"),
    ("threads", "num-threads", "jobs", "cores"),
    ("precision", "dtype", "fp16", "half", "bf16", "int8", "quantize"),
    ("amp", "fp16", "half", "bf16", "mixed-precision", "precision"),
    ("format", "onnx", "trt", "tensorrt", "export", "engine", "backend"),
    ("backends", "backend", "provider", "providers", "engine"),
    ("targets", "target", "sm", "gpu-arch", "compute-capability", "compute-capabilities"),
    ("overwrite", "force", "replace", "exist-ok", "yes"),
    ("calibration-data", "calibration", "calibrate", "calib", "calib-data", "calibration-dir"),
    ("accuracy-data", "accuracy", "eval-data", "val-data", "validation-data", "test-data", "labels", "data-dir", "data"),
    ("verify-data", "probe-data", "images"),
    ("widths", "width-mult", "width-mults", "multiplier", "multipliers", "switch", "switches"),
    ("device", "gpu", "gpus", "cuda", "cpu"),
    ("macs", "flops", "gflops", "budget", "budgets"),
    ("latency-ms", "latency", "budget", "max-latency", "ms"),
    ("verify-only", "verify", "check", "validate", "test"),
    ("no-verify", "skip-verify", "skip-verification"),
    ("predict", "infer", "inference", "image", "images", "source", "classify"),
    ("duration", "time", "seconds", "min-time"),
    ("repeats", "rounds", "runs", "iterations", "num-runs"),
    ("set", "opts", "override", "overrides", "option"),
    ("config", "cfg", "configuration", "app"),
    ("env", "info", "doctor", "environment"),
    ("resume", "continue", "restart", "auto-resume"),
    ("network", "arch", "architecture", "model", "net"),
)


def likely_options(wrong: str, known: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """Of the options `known` (`--widths`), and of the keys that `--set` takes, those that `wrong` may have meant, likeliest
    first: spelled the same but for case, hyphens and underscores; the same thing in other words; nearly the same letters."""
    word = wrong.lstrip("-").lower().replace("_", "-")
    names = {option.removeprefix("--"): option for option in known}
    likely = [option for name, option in names.items() if _letters(name) == _letters(word)]
    key = next((key for key in settings if _letters(key) == _letters(word)), None)
    if key is not None and "--set" in known and not likely:
        return [f"--set {key}=VALUE"]
    close = difflib.get_close_matches(word, list(names), n=MOST, cutoff=0.75)
    alike = [name for group in SYNONYMS if word in group for name in group if name in names]
    far = [] if close or alike else difflib.get_close_matches(word, list(names), n=MOST, cutoff=0.6)
    options = list(dict.fromkeys([*likely, *(names[name] for name in (*alike, *close, *far))]))[:MOST]
    if not options and "--set" in known:
        options = [f"--set {key}=VALUE" for key in likely_keys(wrong, settings)[:1]]
    return options


def likely_keys(wrong: str, keys: Sequence[str]) -> list[str]:
    """Of the `keys` of a configuration (`batch_size`), those that `wrong` may have meant, likeliest first."""
    names = {f"--{key.replace('_', '-')}": key for key in keys}
    return [names[option] for option in likely_options(wrong, list(names))]


def _letters(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()
