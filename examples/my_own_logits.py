"""The paper's rule on logits and features of my own network: `python examples/my_own_logits.py IMAGE`."""

import sys

import torch
from PIL import Image

import oodray

# Any network: class scores before softmax, and a map of features, both covering exactly the image.
image = Image.open(sys.argv[1]).convert("RGB")
generator = torch.Generator().manual_seed(0)
logits = torch.randn(19, image.height // 4, image.width // 4, generator=generator)
features = torch.randn(64, image.height // 16, image.width // 16, generator=generator)

found = oodray.detect(sys.argv[1], oodray.Segmentation(logits, features), k=5, tau=1.5, scores=("ratio", "energy"))
print(f"{found.ood_fraction:.1%} of the image is out of distribution, image score {found.image_score:.2f}")
print(f"energy from {found.scores['energy'].min():.2f} to {found.scores['energy'].max():.2f}")
