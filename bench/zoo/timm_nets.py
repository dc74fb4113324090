"""timm's networks: convolutional ones, and those of attention, of linear layers, or mixed; one of each design."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bench.rivals.optional import timm
from bench.zoo.entry import Entry

CNN: tuple[tuple[str, int], ...] = (
    ("resnet10t", 64),
    ("resnet26d", 64),
    ("resnetv2_18", 64),
    ("resnetaa34d", 64),
    ("resnetblur18", 64),
    ("seresnet18", 64),
    ("legacy_seresnext26_32x4d", 64),
    ("skresnet18", 64),
    ("ecaresnet26t", 64),
    ("gcresnext26ts", 64),
    ("resnest14d", 64),
    ("res2net50_14w_8s", 64),
    ("cspdarknet53", 64),
    ("cspresnet50", 64),
    ("cs3darknet_focus_s", 64),
    ("darknet17", 64),
    ("densenetblur121d", 64),
    ("dla34", 64),
    ("dla46x_c", 64),
    ("dpn48b", 64),
    ("efficientnet_lite0", 64),
    ("efficientnet_es", 64),
    ("tf_efficientnetv2_b0", 64),
    ("fbnetc_100", 64),
    ("fbnetv3_b", 64),
    ("gernet_s", 64),
    ("ghostnet_050", 64),
    ("ghostnetv2_100", 64),
    ("hardcorenas_a", 64),
    ("hgnet_tiny", 64),
    ("hgnetv2_b0", 64),
    ("hrnet_w18_small", 64),
    ("inception_v4", 96),
    ("lcnet_050", 64),
    ("mixnet_s", 64),
    ("mobilenetv1_100", 64),
    ("mobilenetv4_conv_small_050", 64),
    ("mobileone_s0", 64),
    ("nf_regnet_b0", 64),
    ("eca_nfnet_l0", 64),
    ("regnety_002", 64),
    ("regnetz_005", 64),
    ("repghostnet_050", 64),
    ("repvgg_a0", 64),
    ("rexnet_100", 64),
    ("selecsls42", 64),
    ("tinynet_e", 64),
    ("tresnet_m", 64),
    ("ese_vovnet19b_slim", 64),
    ("xception41", 64),
    ("convnext_atto", 64),
    ("convnextv2_atto", 64),
    ("convmixer_768_32", 64),
    ("fasternet_t0", 64),
    ("starnet_s1", 64),
    ("mambaout_femto", 64),
    ("repvit_m1_1", 64),
)
MIXED: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("vit_tiny_patch16_224", 64, {"img_size": 64}),
    ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64}),
    ("deit3_small_patch16_224", 64, {"img_size": 64, "depth": 3}),
    ("eva02_tiny_patch14_224", 56, {"img_size": 56}),
    ("beit_base_patch16_224", 64, {"img_size": 64, "depth": 2}),
    ("cait_xxs24_224", 64, {"img_size": 64, "depth": 4}),
    ("xcit_nano_12_p16_224", 64, {"img_size": 64}),
    ("coat_lite_tiny", 64, {"img_size": 64}),
    ("crossvit_tiny_240", 240, {}),
    ("convit_tiny", 64, {"img_size": 64}),
    ("pit_ti_224", 64, {"img_size": 64}),
    ("levit_128s", 224, {}),
    ("swin_tiny_patch4_window7_224", 64, {"img_size": 64, "window_size": 4}),
    ("swinv2_cr_tiny_224", 64, {"img_size": 64}),
    ("tnt_s_legacy_patch16_224", 64, {"img_size": 64}),
    ("twins_svt_small", 64, {"img_size": 64}),
    ("visformer_tiny", 64, {"img_size": 64}),
    ("mixer_s32_224", 64, {"img_size": 64}),
    ("gmlp_ti16_224", 64, {"img_size": 64}),
    ("gmixer_12_224", 64, {"img_size": 64}),
    ("resmlp_12_224", 64, {"img_size": 64}),
    ("poolformer_s12", 64, {}),
    ("poolformerv2_s12", 64, {}),
    ("mobilevit_xxs", 64, {}),
    ("mobilevitv2_050", 64, {}),
    ("mobilenetv4_hybrid_medium", 64, {}),
    ("efficientformer_l1", 224, {}),
    ("efficientformerv2_s0", 64, {"img_size": 64}),
    ("efficientvit_b0", 64, {}),
    ("efficientvit_m0", 224, {}),
    ("edgenext_xx_small", 64, {}),
    ("fastvit_t8", 64, {}),
    ("caformer_s18", 64, {}),
    ("davit_tiny", 64, {}),
    ("focalnet_tiny_srf", 64, {}),
    ("gcvit_xxtiny", 64, {"img_size": 64}),
    ("halonet26t", 256, {}),
    ("botnet26t_256", 64, {"img_size": 64}),
    ("lambda_resnet26rpt_256", 64, {"img_size": 64}),
    ("hiera_tiny_224", 224, {}),
    ("nest_tiny", 64, {"img_size": 64}),
    ("nextvit_small", 64, {}),
    ("pvt_v2_b0", 64, {}),
    ("sequencer2d_s", 64, {}),
    ("swiftformer_xs", 64, {}),
    ("tiny_vit_5m_224", 64, {}),
    ("mvitv2_tiny", 64, {"img_size": 64}),
    ("maxxvit_rmlp_nano_rw_256", 64, {"img_size": 64}),
    ("shvit_s1", 224, {}),
    ("volo_d1_224", 64, {"img_size": 64}),
    ("flexivit_small", 64, {"img_size": 64, "depth": 3}),
    ("vitamin_small_224", 64, {"img_size": 64}),
    ("iformer_t", 64, {}),
)


def maker(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    """Makes a network of timm with 10 classes and random weights."""
    return lambda: timm().create_model(name, num_classes=10, pretrained=False, **options)


def entries() -> list[Entry]:
    """All of them."""
    found = [Entry(f"timm.{name}", "timm CNN", maker(name, {}), ((3, size, size),)) for name, size in CNN]
    found += [
        Entry(f"timm.{name}", "timm attention, linear, mixed", maker(name, options), ((3, size, size),))
        for name, size, options in MIXED
    ]
    return found
