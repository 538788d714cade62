# InternImage-XL + UPerNet.
_base_ = "./_base_/upernet_internimage.py"
model = dict(
    backbone=dict(
        channels=192,
        depths=[5, 5, 24, 5],
        groups=[12, 24, 48, 96],
        drop_path_rate=0.4,
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
