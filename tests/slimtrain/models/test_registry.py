"""The table of architectures: every row is complete; and the names of networks, right and wrong."""

from __future__ import annotations

import pytest

from slimtrain.base.errors import UserError
from slimtrain.models.published import PUBLISHED, published_spec
from slimtrain.models.registry import ARCHITECTURES, described_architectures, model_name, network_names, sibling, split_name
from slimtrain.models.width_spec import FAMILIES


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_an_architecture_says_itself_what_is_peculiar_to_it(name: str) -> None:
    arch = ARCHITECTURES[name]
    assert arch.name == name and arch.title and set(arch.families) <= set(FAMILIES) and arch.families
    full = arch.wire([arch.untied_list()])
    # no list that a network of this architecture can have gives more groups than this one
    for family in arch.families:
        assert len(set(arch.wire([arch.channel_list(family, 1.0)]).groups)) <= len(set(full.groups))
        assert arch.fixed_groups(family) <= set(full.groups)
    assert arch.untied_list() != arch.channel_list("us", 0.5)
    assert arch.effect_of_tie(full.groups[0], "the other network").count("unlike the other network") == 1
    if arch.size_key:
        assert name.startswith(arch.size_key.stem) and f"{arch.size_key.stem}{arch.size_key.usual}" in ARCHITECTURES


def test_which_groups_are_fixed_and_which_a_search_slims() -> None:
    v2 = published_spec("us_mobilenet_v2")
    assert v2.searchable_groups == tuple(group for group in v2.widest.channels if group != "features.18")
    v1 = published_spec("us_mobilenet_v1")
    assert v1.searchable_groups == tuple(v1.widest.channels) and not v1.fixed_groups
    for name in ("s_shufflenet", "s_mobilenet_v1", "autoslim_mobilenet_v2"):  # no plans but their switches
        assert published_spec(name).searchable_groups == ()


def test_all_architectures_in_a_sentence() -> None:
    assert described_architectures() == "MobileNet v1 or v2, MNasNet, ResNet or ShuffleNet"


def test_every_network_has_a_name_and_a_spec() -> None:
    assert set(PUBLISHED) <= set(network_names())
    for name in network_names():
        family, architecture = split_name(name)
        assert f"{family}_{architecture}" == name
        if not name.startswith("autoslim") or name in PUBLISHED:
            assert published_spec(name).name == name


def test_names_are_split_and_siblings_found() -> None:
    assert split_name("autoslim_resnet50") == ("autoslim", "resnet50")
    assert sibling("autoslim_mnasnet", "us") == "us_mnasnet" and sibling("us_resnet50", "us") == "us_resnet50"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("us_mobilenetv1", "us_mobilenet_v1"), ("s_resnet5O", "s_resnet50"), ("autoslim_mnas", "autoslim_mnasnet")],
)
def test_a_typo_of_a_network_suggests_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{meant}'"):
        split_name(typo)


def test_a_family_that_an_architecture_lacks() -> None:
    with pytest.raises(
        UserError, match=r"network s_shufflenet: there is no us_shufflenet\. .* one: mobilenet_v1, mobilenet_v2, "
    ):
        sibling("s_shufflenet", "us")


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"network 'vgg': not known\. The networks are s_mobilenet_v1, .*s_shufflenet"):
        split_name("vgg")


def test_names_of_models() -> None:
    assert model_name("timm:tf_efficientnet_lite0") == "tf_efficientnet_lite0"
    assert model_name("my.package.module:build") == "build"
