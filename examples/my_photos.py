"""What a network does not know in my photos: `python examples/my_photos.py PHOTOS hf:ORG/NAME`.

NAME is any model of Hugging Face for semantic segmentation; `pip install 'oodray[hf]'`.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import oodray

photos, model, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3] if len(sys.argv) > 3 else "runs/my-photos")

# tau belongs to a network. Without images that hold nothing unknown, take the least sure twentieth of a few photos.
net = oodray.load(model)
some = [path for path in sorted(photos.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")][:5]
confidences = [oodray.detect(path, net, tau=0).confidence.ravel() for path in some]
tau = float(np.quantile(np.concatenate(confidences), 0.05))

run = oodray.run(dataset="folder", root=photos, model=model, tau=tau, out=out, executor="local")
for image in run.images.nlargest(5, "ood_fraction").itertuples():
    print(f"{image.image_id}: {image.ood_fraction:.1%} of it is unknown to the network")
    picture = Image.open(image.image_uri).convert("RGB")
    picture.putalpha(Image.fromarray(run.mask(image.image_id)))
    picture.save(out / f"{Path(image.image_id).name}-unknown.png")
