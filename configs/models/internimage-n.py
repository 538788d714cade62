# InternImage-N, our nano variant: the blocks of T (pre-norm, layer scale), trained on two CPU cores.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=32,
        depths=[2, 2, 4, 1],
        groups=[2, 4, 8, 16],
        drop_path_rate=0.1,
        offset_scale=1.0,
        post_norm=False,
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=96),
)
