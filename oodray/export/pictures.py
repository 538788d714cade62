"""Formats of pictures and arrays: PNG, and what the evaluators of three benchmarks read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from oodray.errors import ResultsError
from oodray.export.format import ExportedImage, Files, Format, npy, png
from oodray.report.outline import outlined

_LEVELS = 65535


class Png(Format):
    """Masks, overlays, and a map of a score with 16 bits."""

    name = "png"
    about = "masks (0, 255), the images with the outline of their mask, and a map of a score with 16 bits"
    needs_score = True

    def image_files(self, image: ExportedImage) -> Files:
        """`ID_mask.png`, `ID_score.png`, and `ID_overlay.jpg` where the image file is there."""
        yield f"{image.image_id}_mask.png", png(image.mask)
        yield f"{image.image_id}_score.png", self._score(image)
        try:
            photo = image.stored.read_photo()
        except ResultsError:
            return
        drawn = Image.fromarray(outlined(photo, image.mask, width=max(1, max(photo.shape) // 640)))
        buffer = io.BytesIO()
        drawn.save(buffer, "JPEG", quality=92)  # as PNG it would take ten times the time and the space
        yield f"{image.image_id}_overlay.jpg", buffer.getvalue()

    def _score(self, image: ExportedImage) -> bytes:
        """A score from 0 to 1 keeps its scale, any other is spread from its least to its largest value."""
        low, high = float(image.scores.min()), float(image.scores.max())
        if 0 <= low <= high <= 1:
            low, high = 0.0, 1.0
        span = high - low or 1.0
        levels = ((image.scores - low) / span * _LEVELS).round().astype(np.uint16)
        formula = f"score = {low!r} + pixel / {_LEVELS} * {span!r}"
        return png(levels, {"score": image.score, "low": repr(low), "high": repr(low + span), "scale": formula})


class Npy(Format):
    """One array for each image, under a name that an evaluator expects."""

    needs_score = True
    ending = ""

    def image_files(self, image: ExportedImage) -> Files:
        """The scores as float32."""
        yield f"{image.image_id}{self.ending}.npy", npy(image.scores.astype(np.float32))


class Fishyscapes(Npy):
    """As Fishyscapes takes anomaly scores."""

    name = "fishyscapes"
    about = "ID_anomaly.npy, the score of each pixel as float32"
    ending = "_anomaly"


class AdeOod(Npy):
    """As the evaluator of ADE-OoD reads them."""

    name = "ade-ood"
    about = "ID_dood_scores.npy, the score of each pixel as float32"
    ending = "_dood_scores"


class Smiyc(Format):
    """As the benchmark of SegmentMeIfYouCan stores scores."""

    name = "smiyc"
    about = "anomaly_p/ID.hdf5 with the score of each pixel under `value`, as SegmentMeIfYouCan stores it"
    needs_score = True

    def image_files(self, image: ExportedImage) -> Files:
        """One HDF5 file.

        Raises:
            ResultsError: h5py is not installed.
        """
        try:
            import h5py
        except ImportError as error:
            raise ResultsError("the format smiyc needs h5py: pip install 'oodray[hdf5]'") from error
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("value", data=image.scores.astype(np.float32), compression="gzip")
        yield f"anomaly_p/{image.image_id}.hdf5", buffer.getvalue()
