"""Every operator of the table of forms against torch in float64, at batch 1 and 3, in onnxruntime."""

from __future__ import annotations

import onnx
import pytest

from slimexport.onnx_files.graph_proof import BATCHES, largest_errors
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.operators.lookups import REFUSED
from slimexport.onnx_files.operators.registry import FORMS
from slimtrain.slimmable.program import DROP_PATH
from tests.support import graph_cases_moves as moves
from tests.support import graph_cases_pointwise as pointwise
from tests.support import graph_cases_products as products
from tests.support import graph_cases_windows as windows
from tests.support.graph_cases import Case, traced

CASES = [
    *(*pointwise.ARITHMETIC, *pointwise.ACTIVATIONS, *windows.CONVOLUTIONS, *windows.POOLS, *windows.RESIZED),
    *(*products.PRODUCTS, *products.RECURRENT, *products.NORMS, *products.REDUCTIONS),
    *(*moves.VIEWS, *moves.MOVES, *moves.LOOKUPS),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{number}" for number, case in enumerate(CASES)])
def test_it_computes_what_torch_does(case: Case) -> None:
    sizing, tensors = traced(case.module, case.shape)
    assert case.kind in {node.kind for node in sizing.graph.nodes}, [node.op for node in sizing.graph.nodes]
    model = write_graph(sizing, tensors)
    onnx.checker.check_model(model, full_check=True)
    errors = largest_errors(model, sizing, tensors)
    assert set(errors) == set(BATCHES)
    assert all(error < 3e-6 for error in errors.values()), errors


def test_every_form_has_a_case() -> None:
    of_ours = {DROP_PATH, "efficient_nms"}  # no operators of torch's, held against their files elsewhere
    assert {case.kind for case in CASES} | set(REFUSED) | of_ours == set(FORMS)
