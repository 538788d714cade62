# InternImage-N with the eight classes of CamVid that are left without cars, pedestrians and bicyclists.
_base_ = "./internimage-n.py"
model = dict(decode_head=dict(num_classes=8))
