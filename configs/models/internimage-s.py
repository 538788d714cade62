# InternImage-S + UPerNet.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=80,
        depths=[4, 4, 21, 4],
        groups=[5, 10, 20, 40],
        drop_path_rate=0.3,
        offset_scale=1.0,
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
)
