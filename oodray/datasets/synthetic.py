"""Sets in which things were rendered or pasted into scenes: MUAD, and the synthetic parts of the BRAVO challenge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import CAMERA, Layout, Pair, frame_name, image_files
from oodray.datasets.remarks import remark
from oodray.storage.place import Place, path_inside

_LABEL = "_leftLabel"
_OF_SUBMISSIONS = ("_pred", "_conf")
_MUAD_OOD = frozenset({12, 16, 17, 18, 19, 20})


class MuadOod(Layout):
    """Franchi et al., MUAD, BMVC 2022: the rendered test images that hold animals, trash and the like.

    Files are coded as Cityscapes' trainIds, with 19 for animals and 20 for trash. Networks know 15 classes: riders,
    trains, motorcycles, bicycles, animals and trash are OoD. Of `MUAD.classes` in torch-uncertainty's
    `datasets/muad.py`, and `segmentation/muad/classes.json` of torch-uncertainty/dataset-metadata, commit 49178c1.
    """

    name = "muad-ood"
    title = "MUAD, ood"
    images = 1668
    parts = (20,)
    where = "https://muad-dataset.github.io"
    tree = (
        "ROOT/ood/leftImg8bit/NAME_leftImg8bit.png\n"
        "ROOT/ood/leftLabel/NAME_leftLabel.png   0 to 11 and 13 to 15 in-distribution, 12 and 16 to 20 OoD, 21 and 255 "
        "ignore\n"
        "or test_OOD/ or test_ood/ in place of ood/; labels may also be called as their images are"
    )
    folders = ("ood/leftImg8bit", "ood/leftLabel")
    repackings = (
        ("test_OOD/leftImg8bit", "test_OOD/leftLabel"),
        ("test_ood/leftImg8bit", "test_ood/leftLabel"),
        ("test_sets/test_OOD/leftImg8bit", "test_sets/test_OOD/leftLabel"),
        ("leftImg8bit", "leftLabel"),
    )
    folder_names = ("MUAD", "MUAD_ood", "test_OOD")
    label_codes = LabelCodes(
        ood=_MUAD_OOD, ignore=frozenset({21, 255}), in_distribution=frozenset(range(16)) - _MUAD_OOD
    )

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their frames, with `_leftLabel` or without."""
        images, labels = (root / folder for folder in self.form(root) or self.folders)
        for image in image_files(images, recursive=True):
            folder, frame = labels / path_inside(image.parent, images), frame_name(image)
            names = (f"{frame}{_LABEL}.png", f"{image.stem}.png", f"{frame}.png")
            yield image, next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


class _Bravo(Layout):
    """Vu et al., The BRAVO Semantic Segmentation Challenge, ECCV 2024 workshops: one of its synthetic sets.

    A pixel is OoD where the mask of invalid pixels is not 0 (`evaluate_bravo` of `bravo_toolkit/eval/eval_script.py`,
    commit 3ab6566). The challenge keeps these masks to itself: without them, there is a mask and a score of each image,
    and no metric. Its own numbers leave out pixels whose true class is void, 255 in a second file; here they count.
    """

    where = "https://github.com/valeoai/bravo_challenge (images; masks are those of its ground-truth tar)"
    folders = ()
    label_codes = LabelCodes(ood=frozenset(range(1, 256)), ignore=frozenset(), in_distribution=frozenset({0}))
    subset: ClassVar[str]
    mask: ClassVar[str] = "_gt_invIds"

    def pairs(self, root: Place) -> Iterable[Pair]:
        """All images, and their masks beside them where they are."""
        inside = root / f"bravo_{self.subset}"
        files = image_files(inside if inside.is_dir() else root, recursive=True)
        masks = {path for path in files if path.stem.endswith(self.mask)}
        others = (*_OF_SUBMISSIONS, "_gt", "_gt_labelTrainIds")
        images = [path for path in files if path not in masks and not path.stem.endswith(others)]
        if images and not masks:
            remark(f"no image has a mask of invalid pixels, NAME{self.mask}.png: nothing can be measured", wrong=False)
        for image in images:
            mask = image.parent / f"{image.stem.removesuffix(CAMERA)}{self.mask}.png"
            # Where any mask is there, all should be.
            yield image, mask if masks else None


class BravoSynObjs(_Bravo):
    """Objects of 26 kinds, pasted by a diffusion model."""

    name = "bravo-synobjs"
    title = "BRAVO synobjs"
    images = 656
    subset = "synobjs"
    mask = "_mask"
    tree = "ROOT/KIND/NUMBER.png\nROOT/KIND/NUMBER_mask.png   0 in-distribution, anything else OoD; may be hidden"
    folder_names = ("bravo_synobjs", "synobjs")


class BravoOutOfContext(_Bravo):
    """Images of Cityscapes whose surroundings were replaced by random backgrounds."""

    name = "bravo-outofcontext"
    title = "BRAVO outofcontext"
    images = 329
    subset = "outofcontext"
    tree = (
        "ROOT/CITY/NAME_leftImg8bit.png\nROOT/CITY/NAME_gt_invIds.png   0 in-distribution, anything else OoD; may be "
        "hidden"
    )
    folder_names = ("bravo_outofcontext", "outofcontext")


class BravoSynRain(_Bravo):
    """Images of Cityscapes with drops of rain on the lens."""

    name = "bravo-synrain"
    title = "BRAVO synrain"
    images = 500
    subset = "synrain"
    tree = BravoOutOfContext.tree
    folder_names = ("bravo_synrain", "synrain")


class BravoSynFlare(_Bravo):
    """Images of Cityscapes with flares of light."""

    name = "bravo-synflare"
    title = "BRAVO synflare"
    images = 308
    subset = "synflare"
    tree = BravoOutOfContext.tree
    folder_names = ("bravo_synflare", "synflare")
