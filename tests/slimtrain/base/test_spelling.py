"""What a wrong option was to be: the real spelling, another tool's word, or a key of the configuration."""

from __future__ import annotations

import pytest

from slimtrain.base.spelling import SYNONYMS, likely_options

EXPORT = ("--ckpt", "--widths", "--macs", "--output-dir", "--image-size", "--batch", "--precision", "--overwrite", "--predict")
TRAIN = ("--set", "--data-dir", "--batch-size", "--workers", "--pretrained", "--amp")


@pytest.mark.parametrize(
    ("wrong", "known", "first"),
    [
        ("--width", EXPORT, "--widths"),
        ("--checkpoint", EXPORT, "--ckpt"),
        ("--weights", EXPORT, "--ckpt"),
        ("--batchsize", TRAIN, "--batch-size"),
        ("--batch_size", TRAIN, "--batch-size"),
        ("--BatchSize", TRAIN, "--batch-size"),
        ("--batch-size", EXPORT, "--batch"),
        ("--imgsz", EXPORT, "--image-size"),
        ("--imagesize", EXPORT, "--image-size"),
        ("--out", EXPORT, "--output-dir"),
        ("--output_dir", EXPORT, "--output-dir"),
        ("--fp16", EXPORT, "--precision"),
        ("--fp16", TRAIN, "--amp"),
        ("--force", EXPORT, "--overwrite"),
        ("--checkpoint", TRAIN, "--pretrained"),
        ("--num-workers", TRAIN, "--workers"),
        ("--overwritte", EXPORT, "--overwrite"),
    ],
)
def test_the_likeliest_comes_first(wrong: str, known: tuple[str, ...], first: str) -> None:
    assert likely_options(wrong, known)[0] == first


def test_only_what_the_command_has_is_suggested() -> None:
    for wrong in ("--checkpoint", "--bs", "--gpu", "--xyzzy"):
        assert set(likely_options(wrong, ("--widths",))) <= {"--widths"}
    assert likely_options("--xyzzy", EXPORT) == []


def test_a_key_of_the_configuration_is_set() -> None:
    assert likely_options("--weight-decay", TRAIN, ("weight_decay", "lr")) == ["--set weight_decay=VALUE"]
    assert likely_options("--lr", TRAIN, ("weight_decay", "lr")) == ["--set lr=VALUE"]
    assert likely_options("--lr", (*TRAIN, "--lr"), ("lr",)) == ["--lr"]
    assert "--set lr=VALUE" not in likely_options("--lr", EXPORT, ("lr",))


def test_at_most_three_are_named_and_words_of_a_group_differ() -> None:
    assert all(len(likely_options(f"--{word}", EXPORT)) <= 3 for group in SYNONYMS for word in group)
    assert all(len(set(group)) == len(group) for group in SYNONYMS)
