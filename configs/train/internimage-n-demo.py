# Training of internimage-n-demo on procedural scenes; under an hour on two CPU cores:
#   python -m oodray.training configs/train/internimage-n-demo.py --out work_dirs/internimage-n-demo
_base_ = "../models/internimage-n-demo.py"

crop = (224, 320)
iterations = 2000
model = dict(data_preprocessor=dict(size=crop))
default_scope = "mmseg"
randomness = dict(seed=0, deterministic=True)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="SceneCrops", scenes=600, crop=crop),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="WholeScenes", scenes=32),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="WholeScenes", scenes=64),
)
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type="PolyLR", power=1.0, eta_min=1e-6, by_epoch=False, begin=100, end=iterations),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=250, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
