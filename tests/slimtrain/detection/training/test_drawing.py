"""What is drawn of an image does not depend on the images beside it."""

from __future__ import annotations

import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.rpn import RegionProposalNetwork

from slimtrain.detection.training.drawing import DrawnSingly, drawn_singly


def labels(count: int, images: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(0, 3, (count,), generator=draw) for _ in range(images)]


def test_an_image_alone_has_the_draws_that_it_has_among_others() -> None:
    sampler, matched = DrawnSingly(BalancedPositiveNegativeSampler(8, 0.5)), labels(100, 3)
    sampler.seeds = [5, 6, 7]
    together = sampler(matched)
    torch.manual_seed(0)
    for number, seed in enumerate(sampler.seeds):
        alone = DrawnSingly(sampler.sampler)
        alone.seeds = [seed]
        for part, own in zip(together, alone([matched[number]]), strict=True):
            assert torch.equal(part[number], own[0])
    assert all(int(mask.sum()) == 4 for part in together for mask in part)


def test_other_seeds_draw_others_and_without_seeds_it_is_torchvision_s_own() -> None:
    plain = BalancedPositiveNegativeSampler(8, 0.5)
    sampler, matched = DrawnSingly(plain), labels(100, 2)
    draws = []
    for seeds in ([1, 2], [1, 3]):
        sampler.seeds = seeds
        draws.append(sampler(matched)[0])
    assert torch.equal(draws[0][0], draws[1][0]) and not torch.equal(draws[0][1], draws[1][1])
    sampler.seeds = []
    torch.manual_seed(3)
    own = sampler(matched)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for x, y in zip(own, plain(matched), strict=True) for a, b in zip(x, y, strict=True))


def test_a_part_of_torchvision_s_draws_by_it() -> None:
    options = {"training": 4, "testing": 4}
    part = RegionProposalNetwork(torch.nn.Identity(), torch.nn.Identity(), 0.7, 0.3, 8, 0.5, options, options, 0.7)
    drawn = drawn_singly(part)
    assert part.fg_bg_sampler is drawn and isinstance(drawn.sampler, BalancedPositiveNegativeSampler)
