# internimage-n-camvid without cars, pedestrians and bicyclists: their pixels are ignored in training, so that the
# network was never taught them. On the test frames they are OoD, with exact labels:
#   python -m oodray.training configs/train/internimage-n-camvid-held-out.py --root CAMVID --out DIR
_base_ = "./internimage-n-camvid.py"

classes = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence")
model = dict(decode_head=dict(num_classes=8))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
