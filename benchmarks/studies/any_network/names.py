"""The networks of the coverage study. torchvision's are all of its classifiers (0.29); timm's (1.0.31) are 70 convolutional
ones and 40 transformers and hybrids, one or two of every family, chosen before the code was written; `drawn` were drawn
afterwards: `random.Random(0).shuffle` of `timm.list_models()` without those, the first hundred below 60 million parameters.
`others` came last: small ones of the families that had none yet, and forms of others that had not been tried."""

from __future__ import annotations

TORCHVISION = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf
regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13
vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
"""
TIMM = """
resnet18 resnet50 resnet50d resnext50_32x4d wide_resnet50_2 seresnet50 ecaresnet50d resnetv2_50 resnetv2_50x1_bit
res2net50_26w_4s resnest50d skresnet34 regnetx_004 regnety_008 regnetz_b16 efficientnet_b0 efficientnet_b3
efficientnet_lite0 efficientnetv2_s tf_efficientnet_b0 tf_efficientnetv2_b0 mixnet_s mnasnet_100 fbnetc_100
mobilenetv1_100 mobilenetv2_100 mobilenetv3_large_100 mobilenetv3_small_100 mobilenetv4_conv_small
mobilenetv4_conv_medium tinynet_a lcnet_100 hardcorenas_a rexnet_100 ghostnet_100 ghostnetv2_100 convnext_tiny
convnext_atto convnextv2_atto densenet121 vgg16 vgg16_bn inception_v3 inception_v4 inception_resnet_v2 xception41
legacy_xception nfnet_l0 dm_nfnet_f0 nf_regnet_b1 fastvit_t8 mobileone_s0 repvgg_a2 repvit_m1 hrnet_w18_small dla34
dpn68 selecsls42b cspresnet50 cspdarknet53 darknet53 ese_vovnet19b_dw hgnetv2_b0 gernet_s edgenext_small
inception_next_tiny starnet_s1 poolformer_s12 tresnet_m mambaout_femto vit_tiny_patch16_224 vit_small_patch16_224
deit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 flexivit_small
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 cait_xxs24_224 xcit_nano_12_p16_224 pvt_v2_b0 twins_svt_small
mvitv2_tiny crossvit_tiny_240 pit_ti_224 coat_lite_tiny convit_tiny tnt_s_patch16_224 volo_d1_224 maxvit_tiny_tf_224
mixer_b16_224 gmlp_s16_224 resmlp_12_224 convmixer_768_32 davit_tiny hiera_tiny_224 mobilenetv4_hybrid_medium
mobilevit_s mobilevitv2_050 efficientformer_l1 efficientvit_b0 efficientvit_m0 coatnet_0_rw_224 levit_128
tiny_vit_5m_224 nextvit_small visformer_tiny botnet26t_256 focalnet_tiny_srf
"""
DRAWN = """
rdnet_small resnetblur18 regnetx_016 botnet50ts_256 inception_next_small crossvit_9_dagger_240 eca_resnet33ts halonet26t
regnetx_002 resnest101e shvit_s2 coatnet_rmlp_0_rw_224 resnetv2_34 seresnet101 repvgg_b1 swin_s3_tiny_224
mobilevitv2_200 fastvit_mci2 tf_efficientnetv2_b1 levit_conv_128 ecaresnet26t mobilenetv2_035 swinv2_cr_small_384
seresnext26d_32x4d resnetaa50 pit_xs_224 iformer_s nextvit_base resnetv2_18d nf_ecaresnet101 gmlp_ti16_224 test_vit3
mobileone_s4 maxvit_rmlp_nano_rw_256 nest_tiny efficientnetv2_rw_s xcit_nano_12_p16_384 resnetv2_18
mobilenetv4_conv_aa_large starnet_s150 hardcorenas_c cs3darknet_focus_x regnetz_b16_evos test_convnext2 mobilevit_xxs
repvit_m1_0 tf_efficientnet_lite2 cpubone_b1_bfrobust eva02_small_patch14_224 densenetblur121d resnet50_gn
resnetv2_50d_gn fasternet_t1 vit_dlittle_patch16_reg1_gap_256 xcit_nano_12_p8_224 test_byobnet coat_lite_medium
tinynet_c eca_nfnet_l0 edgenext_base twins_pcpvt_base convnextv2_nano selecsls84 convnext_small edgenext_x_small
lcnet_050 vit_small_patch16_rope_mixed_224 fastvit_sa36 skresnet50d convnext_femto resnest50d_1s4x24d
vit_tiny_r_s16_p8_384 tiny_vit_21m_224 efficientvit_b1 nf_ecaresnet26 resnext26ts regnetx_008 dla60_res2net mvitv2_base
darknet17 levit_384_s8 resnest50d_4s2x40d vit_small_patch16_lingbot swinv2_cr_small_ns_256 poolformerv2_s24
mobilenetv2_120d semnasnet_140 ese_vovnet39b_evos cait_xxs36_224 poolformer_s24 hardcorenas_d cs3darknet_m
test_efficientnet_evos regnety_004 dla60_res2next cspresnext50 resnet34d convnextv2_femto mobilenet_edgetpu_v2_m
gmixer_24_224
"""
OTHERS = """
halonet_h1 eca_botnext26ts_256 eca_halonext26ts bat_resnext26ts lambda_resnet26t sebotnet33ts_256 cpubone_nano
cspnext_tiny dla46_c dpn48b efficientformerv2_s0 efficientvim_m1 fasternet_t0 gcvit_xxtiny ghostnetv3_050 iformer_t
lcnetv2_small levit_128s levit_conv_128s lowformer_b0 poolformerv2_s12 gmixer_12_224 rdnet_tiny res2next50 resnest14d
repghostnet_050 sequencer2d_s shvit_s1 starnet_s050 swiftformer_xs swinv2_cr_tiny_224 twins_pcpvt_small
vit_tiny_r_s16_p8_224 test_vit2 test_vit_relpos vit_srelpos_small_patch16_224 vitamin_small_224 test_coatnet
test_maxvit test_nfnet test_convnext3 test_mambaout hieradet_small mvitv2_small_cls pit_ti_distilled_224
deit_tiny_distilled_patch16_224 cs3darknet_focus_s xception41p selecsls42 legacy_seresnext26_32x4d skresnet18
mnasnet_small efficientvim_m1_dist csatv2 mobilenetv5_base naflexvit_base_patch16_gap samvit_base_patch16_224
"""
# list -> the library that its networks are of, and their names
LISTS = {
    "torchvision": ("torchvision", tuple(TORCHVISION.split())),
    "timm": ("timm", tuple(TIMM.split())),
    "drawn": ("timm", tuple(DRAWN.split())),
    "others": ("timm", tuple(OTHERS.split())),
}
