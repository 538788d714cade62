# Training of internimage-n-demo on procedural scenes; under an hour on two CPU cores:
#   python -m oodray.training configs/train/internimage-n-demo.py --out work_dirs/internimage-n-demo
_base_ = ["../models/internimage-n-demo.py", "./_base_/runner.py"]

crop = (224, 320)
iterations = 2000
model = dict(data_preprocessor=dict(size=crop))
randomness = dict(seed=0, deterministic=True)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(type="SceneCrops", scenes=600, crop=crop),
)
val_dataloader = dict(num_workers=0, dataset=dict(type="WholeScenes", scenes=32))
test_dataloader = dict(num_workers=0, dataset=dict(type="WholeScenes", scenes=64))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type="PolyLR", power=1.0, eta_min=1e-6, by_epoch=False, begin=100, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=500)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=250))
