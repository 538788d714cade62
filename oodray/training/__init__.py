"""Training the networks that oodray carries or measures itself with."""

from oodray.models.mmcv_ops import ensure_mmcv_ops

# Every module of this room imports mmsegmentation, which asks for mmcv.ops at once.
ensure_mmcv_ops()
