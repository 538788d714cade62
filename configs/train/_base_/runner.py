# What the trainings of our own networks share.
default_scope = "mmseg"

train_dataloader = dict(persistent_workers=True, sampler=dict(type="InfiniteSampler", shuffle=True))
val_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False))
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
train_cfg = dict(type="IterBasedTrainLoop")
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    logger=dict(type="LoggerHook", log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
