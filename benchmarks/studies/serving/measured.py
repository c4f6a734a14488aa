"""The figures on this machine: both networks, every trace, every open width by itself, slackfit and drain."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load.capacity import capacity_of
from benchmarks.load.comparing import compare
from benchmarks.load.figures import PolicyFigures
from benchmarks.load.services import LocalService
from benchmarks.load.traces import draw
from benchmarks.load.wording import console, notes
from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.serving.bundles import digits_bundle, published_bundle
from benchmarks.studies.serving.questions import SETTINGS, Setting, answers, said, shown
from slimexport.target.serving.policy import FIXED, POLICIES


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both networks; printed as it comes, and given as plain values."""
    before = environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = {}
        if arguments.only != "digits":
            bundle = published_bundle(folder, arguments.bundle)
            networks["published"] = network(bundle, arguments, images=1)
        if arguments.only != "published":
            bundle = digits_bundle(folder, arguments.digits)
            networks["digits"] = network(bundle, arguments, images=arguments.digits_images)
    return {
        "command": study_command("benchmarks.studies.serving"),
        "environment": before,
        "networks": networks,
        "environment_after": environment(),
    }


def network(bundle: Path, arguments: argparse.Namespace, images: int) -> dict[str, Any]:
    """One network on all traces, with so many images in a request."""
    slo_ms = arguments.slo_ms
    service = LocalService(bundle, None, slo_ms, arguments.seed, images)
    capacity = capacity_of(service.opened.widest_ms)
    policies = [*(f"{FIXED}:{label}" for label in reversed(service.opened.labels)), *reversed(POLICIES)]
    print(
        f"{bundle.name}: widths {', '.join(service.opened.labels)}, {capacity:.0f} images per second of the widest", flush=True
    )
    by_setting: dict[Setting, list[PolicyFigures]] = {}
    traces = []
    for setting in SETTINGS:
        trace = draw(setting.kind, setting.load * capacity / images, arguments.seconds, arguments.seed, setting.cv2)
        traces.append(trace.as_dict())
        runs = compare(service.play, policies, trace, slo_ms, lambda: service.facts[0], arguments.repeats)
        by_setting[setting] = [run.figures for run in runs]
        print(f"\n{setting.title}\n{console(by_setting[setting])}", flush=True)
        print("\n".join(notes(by_setting[setting])), flush=True)
    given = {name: answers(by_setting, name) for name in POLICIES}
    print(f"\n{shown(by_setting)}")
    for of_policy in given.values():
        print("\n".join(said(of_policy)), flush=True)
    return {
        "bundle": bundle.name,
        "slo_ms": slo_ms,
        "images": images,
        "capacity": capacity,
        "accuracies": service.facts[1],
        "latencies_ms": service.opened.latencies_ms,
        "answers": given,
        "traces": [
            {"setting": setting.title, "trace": trace, "policies": [row.as_dict() for row in by_setting[setting]]}
            for setting, trace in zip(SETTINGS, traces, strict=True)
        ],
    }
