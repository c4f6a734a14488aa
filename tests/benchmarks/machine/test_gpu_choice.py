"""Which of several GPUs is CUDA's."""

from __future__ import annotations

import pytest

from benchmarks.machine.gpu_choice import Listed, NoGpu, anonymous, choose, short_hash

TWO_ALIKE = [Listed(0, "GPU-aaaa-1", "A100"), Listed(1, "GPU-aabb-2", "A100")]
TWO_KINDS = [Listed(0, "GPU-aaaa-1", "T400"), Listed(1, "GPU-aabb-2", "A100")]


@pytest.mark.parametrize(
    ("visible", "device", "index"),
    [
        (None, 0, 0),
        (None, 1, 1),
        ("1", 0, 1),
        (" 1 , 0", 0, 1),
        ("1,0", 1, 0),
        ("GPU-aabb-2", 0, 1),
        ("GPU-aab", 0, 1),
        ("GPU-aabb-2,0", 1, 0),
        ("MIG-GPU-aabb-2/1/0", 0, 1),
        ("0,-1,1", 0, 0),
    ],
)
def test_the_visible_gpus_are_counted_in_their_order(visible: str | None, device: int, index: int) -> None:
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert choose(TWO_ALIKE, device, variables) == (TWO_ALIKE[index], True)


@pytest.mark.parametrize("visible", ["", "-1", "2", "NoDevFiles", "GPU-aa", "GPU-cc", "-1,0", "MIG-123e4567-e89b"])
def test_no_gpu_is_left_where_the_first_entry_names_none_or_several(visible: str) -> None:
    with pytest.raises(NoGpu, match="CUDA_VISIBLE_DEVICES="):
        choose(TWO_ALIKE, 0, {"CUDA_VISIBLE_DEVICES": visible})


def test_the_list_ends_at_the_first_entry_that_is_none() -> None:
    with pytest.raises(NoGpu, match="CUDA has 1 of 2 GPUs"):
        choose(TWO_ALIKE, 1, {"CUDA_VISIBLE_DEVICES": "0,-1,1"})


def test_an_instance_of_the_only_gpu_is_on_it() -> None:
    assert choose(TWO_ALIKE[:1], 0, {"CUDA_VISIBLE_DEVICES": "MIG-123e4567-e89b"}) == (TWO_ALIKE[0], True)


@pytest.mark.parametrize(
    ("variables", "sure"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "1"}, False),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, False),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, True),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aabb-2"}, True),
    ],
)
def test_among_different_gpus_a_number_is_sure_only_in_the_order_of_the_bus(variables: dict[str, str], sure: bool) -> None:
    assert choose(TWO_KINDS, 0, variables)[1] is sure


def test_a_machine_without_gpus_says_so() -> None:
    with pytest.raises(NoGpu, match="no GPU"):
        choose([], 0, {})


def test_uuids_are_hashed() -> None:
    uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    assert anonymous(f"0,{uuid},MIG-{uuid}/1/0") == f"0,GPU-#{short_hash(uuid)},MIG-#{short_hash(f'MIG-{uuid}/1/0')}"
    assert anonymous("0,1") == "0,1"
    assert len(short_hash(uuid)) == 12 and short_hash(uuid) not in uuid
