# Training of internimage-n-camvid on CamVid's 367 training frames, 8 minutes on an H100, about 4 hours on two cores:
#   python -m oodray.training configs/train/internimage-n-camvid.py --root CAMVID --out work_dirs/internimage-n-camvid
# The same command continues a training that was interrupted.
_base_ = ["../models/internimage-n-camvid.py", "./_base_/runner.py"]

classes = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
crop = (256, 320)
iterations = 4200
model = dict(
    data_preprocessor=dict(size=crop),
    # The mean over the pixels that are trained, however many are ignored.
    decode_head=dict(loss_decode=dict(avg_non_ignore=True)),
)
# Not `deterministic`: the backward pass of grid_sample has no deterministic form on CUDA.
randomness = dict(seed=0)

frames = dict(type="CamVidFrames", metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=16,
    num_workers=5,
    dataset=dict(
        **frames,
        split="train",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
whole_frames = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
val_dataloader = dict(num_workers=2, dataset=dict(**frames, split="val", pipeline=whole_frames))
test_dataloader = dict(num_workers=2, dataset=dict(**frames, split="test", pipeline=whole_frames))

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type="PolyLR", power=1.0, eta_min=1e-6, by_epoch=False, begin=500, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=1000)
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=500))
