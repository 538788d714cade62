# InternImage-N with the eleven classes of CamVid.
_base_ = "./internimage-n.py"
model = dict(decode_head=dict(num_classes=11))
