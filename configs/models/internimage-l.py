# InternImage-L + UPerNet.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=160,
        depths=[5, 5, 22, 5],
        groups=[10, 20, 40, 80],
        drop_path_rate=0.4,
    ),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
)
