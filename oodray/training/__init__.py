"""Training the networks that oodray carries or measures itself with."""

# Every module of this room imports mmsegmentation: that one prepares it, and registers our networks with it.
import oodray.models.mmseg  # noqa: F401
