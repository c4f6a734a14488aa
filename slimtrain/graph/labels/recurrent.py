"""Recurrent layers: a state's position goes with its row in every gate, and with the column that reads it a step later."""

from __future__ import annotations

import numpy as np

from slimtrain.graph.graph import values_of
from slimtrain.graph.labels.labelling import Axis, Labels
from slimtrain.graph.labels.products import SUMMED
from slimtrain.graph.labels.registry import Call, rule
from slimtrain.graph.recurrence import GATES, RECURRENT, STEPS, cell_kind, cells_of

TIME = "a recurrent layer runs along it, or reads one after the other apart"
STATE = "it is a state that a recurrent layer begins with"


@rule(*RECURRENT)
def recurrent(call: Call) -> list[Labels]:
    """Every layer and direction has a state as wide as the others': torch keeps all in one tensor [layers * directions, N, H],
    and a position that goes, goes in all of them."""
    run, node, x = call.run, call.node, call.labels("input")
    cells = cells_of(node)
    if len(x.shape) != (2 if node.kind in STEPS else 3):
        raise ValueError("a sequence without images is not known here")
    for axis in x.axes[:-1]:
        run.pin_axis(axis, TIME)
    state = run.labels[cells[0].of_state].axes[1]
    read, size = x.axes[-1], x.shape[-1]
    written: list[Axis] = []
    for cell in cells:
        if cell.layer and cell.direction == 0:  # the layer before gives what its directions do, one behind the other
            read, written = _behind(written), []
            size = len(read)
        weight, own = run.labels[cell.of_input], run.labels[cell.of_state].axes[1]
        if state is None or own is None:
            raise ValueError("a state of one number has no ids")
        if size > 1:
            run.match([read, weight.axes[1]], SUMMED)
        run.tie(state.ids, own.ids)
        for value in (cell.of_input, cell.of_state, *cell.biases):
            rows = run.labels[value].axes[0]
            assert rows is not None, "as many rows as the state has, at least"
            run.tie(rows.ids.reshape(GATES[cell_kind(node)], -1), own.ids)
        written.append(own)
    assert state is not None, "there are cells"
    for begun in (run.labels[value] for value in values_of(call["hx"])):
        for axis in begun.axes[:-1]:
            run.pin_axis(axis, STATE)
        run.match([state, begun.axes[-1]], STATE)
    after = [Labels.along(shape, {-1: state}) for shape in call.shapes]
    if node.kind in STEPS:
        return after
    return [Labels.along(call.shape, {2: _behind(written)}), *after[1:]]


def _behind(axes: list[Axis]) -> Axis:
    return Axis(np.concatenate([axis.ids for axis in axes]))
