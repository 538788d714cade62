# InternImage-N with the ten classes of the procedural scenes.
_base_ = "./internimage-n.py"
model = dict(decode_head=dict(num_classes=10))
