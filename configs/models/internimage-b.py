# InternImage-B + UPerNet.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=112,
        depths=[4, 4, 21, 4],
        groups=[7, 14, 28, 56],
        drop_path_rate=0.4,
        offset_scale=1.0,
    ),
    decode_head=dict(in_channels=[112, 224, 448, 896]),
)
