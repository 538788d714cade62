# Fast-SCNN on CamVid without cars, pedestrians and bicyclists: a second network that was never taught them, of another
# architecture than internimage-n-camvid-held-out. 2,000 steps, half an hour on one CPU core:
#   python -m oodray.training configs/train/fast-scnn-camvid-held-out.py --root CAMVID --out DIR --threads 1
_base_ = ["../models/fast-scnn-camvid-held-out.py", "./_base_/runner.py"]

classes = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence")
crop = (160, 208)
iterations = 2000
loss = dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True)
model = dict(
    data_preprocessor=dict(size=crop),
    decode_head=dict(loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=[
        dict(
            type="FCNHead",
            in_channels=channels,
            channels=32,
            num_convs=1,
            num_classes=8,
            in_index=index,
            norm_cfg=dict(type="BN", requires_grad=True, momentum=0.05),
            concat_input=False,
            align_corners=False,
            loss_decode=dict(loss_weight=0.4, **loss),
        )
        for channels, index in ((128, -2), (64, -3))
    ],
)
randomness = dict(seed=0, deterministic=True)

frames = dict(type="CamVidFrames", metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **frames,
        split="train",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(480, 360), ratio_range=(0.45, 1.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
whole_frames = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
val_dataloader = dict(num_workers=0, dataset=dict(**frames, split="val", pipeline=whole_frames))
test_dataloader = dict(num_workers=0, dataset=dict(**frames, split="test", pipeline=whole_frames))

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=100, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=5000)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
