"""Training the networks that oodray carries or measures itself with."""

# Every module of this room imports mmsegmentation: this prepares it, in this order. A Runner needs more than a network
# does: all optimizers, which `oodray.models.mmseg` would import without those of transformers; our networks, which that
# module registers; and the datasets, hooks and metrics.
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.optim  # noqa: F401

    # isort: split
    import oodray.models.mmseg  # noqa: F401

    # isort: split
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
