"""The pictures of a run by kind: what each shows, and the file that it is in. Drawing them is `report.plots`'."""

from __future__ import annotations

import re

from benchmarks.report.analysis import Group

LATENCY, THROUGHPUT, PARETO = "latency", "throughput", "pareto"
SHOWN = {LATENCY: "latency against MACs", THROUGHPUT: "throughput against width", PARETO: "the Pareto front"}


def file_name(kind: str, group: Group) -> str:
    """`latency_us_mobilenet_v1_onnxruntime-cpu_fp32.png`."""
    bundle, backend, precision, _ = group.key
    return re.sub(r"[^\w.-]+", "_", f"{kind}_{bundle}_{backend}_{precision}") + ".png"
