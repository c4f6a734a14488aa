"""How many slots a width keeps."""

from slimtrain.groups.rounding import channels_at, slots_at


def test_wide_groups_keep_multiples_of_eight() -> None:
    assert [slots_at(100, width) for width in (0.1, 0.25, 0.5, 0.75, 1.0)] == [16, 24, 48, 72, 100]


def test_few_slots_are_counted_one_by_one() -> None:
    assert [slots_at(12, width) for width in (0.01, 0.25, 0.5, 1.0)] == [1, 3, 6, 12]


def test_a_width_of_one_is_the_whole_network() -> None:
    sizes = {"a": 3, "b": 17, "c": 1000}
    assert channels_at(sizes, 1.0) == sizes
