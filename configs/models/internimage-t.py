# InternImage-T + UPerNet.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=64,
        depths=[4, 4, 18, 4],
        groups=[4, 8, 16, 32],
        drop_path_rate=0.2,
        offset_scale=1.0,
        post_norm=False,
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
