"""The first stage: image files to pixels. It runs on CPUs, as tasks or in threads."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from oodray.datasets.images import LabelCodes, decode_codes, decode_with_warning, read_bytes, read_label
from oodray.datasets.manifest import ListedImage
from oodray.datasets.orientation import exif_orientation, upright
from oodray.errors import ImageError
from oodray.job.attempts import Guard, unguarded
from oodray.job.units import DecodedImage
from oodray.records import extended


@dataclass(frozen=True)
class Decoder:
    """Reads and decodes images and labels.

    One image that cannot be decoded never takes another one with it: it carries an error and passes on.

    Attributes:
        label_codes: what the codes in label files mean.
        guard: of the work on images.
        names_classes: whether the classes that labels name are wanted, too.
    """

    label_codes: LabelCodes
    guard: Guard = field(default_factory=unguarded)
    names_classes: bool = False

    def __call__(self, images: list[ListedImage]) -> list[DecodedImage]:
        """The images of a unit, decoded."""
        return self.guard.run("decode", images, lambda batch: [self.decode(image) for image in batch], _given_up)

    def decode(self, listed: ListedImage) -> DecodedImage:
        """An image of the manifest, decoded, or with an error."""
        start = time.perf_counter()
        try:
            decoded = self._decoded(listed)
        except ImageError as error:
            decoded = extended(DecodedImage, listed, error=str(error))
        return replace(decoded, seconds_decode=time.perf_counter() - start)

    def _decoded(self, listed: ListedImage) -> DecodedImage:
        data = read_bytes(listed.image_uri)
        stored, of_file = decode_with_warning(data)
        label_data = read_label(listed.label_uri)
        codes = None if label_data is None else decode_codes(label_data)
        label = None if codes is None else self.label_codes.labels(codes)
        label_size = None if label is None else (label.shape[0], label.shape[1])
        image, orientation, warning = upright(stored, exif_orientation(data), label_size)
        height, width = image.shape[:2]
        warning = "; ".join(filter(None, (of_file, warning))) or None
        decoded = extended(
            DecodedImage, listed, height=height, width=width, orientation=orientation, warning=warning, image=image
        )
        if label is not None and label.shape != (height, width):
            raise ImageError(
                f"the label {listed.label_uri} is {label.shape[1]}x{label.shape[0]} pixels, its image {width}x{height}"
            )
        classes = self.label_codes.classes(codes) if self.names_classes and codes is not None else None
        return replace(decoded, label=label, true_classes=classes)


def _given_up(listed: ListedImage, error: str) -> DecodedImage:
    return extended(DecodedImage, listed, error=error)
