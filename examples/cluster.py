"""A dataset on a Ray cluster: `python examples/cluster.py HEAD:6379 folder s3://bucket/in s3://bucket/out MODEL TAU`.

Every node needs oodray and must see the images and the results folder, here in an object store; see docs/cluster.md.
Run it again to continue it, from any machine.
"""

import sys

import oodray

address, dataset, root, out, model, tau = sys.argv[1:]
run = oodray.run(
    dataset=dataset,
    root=root,
    out=out,
    model=model,
    tau=float(tau),
    ray_address=address,
    executor="ray",
    threads=1,
)
print(f"{len(run.images)} images, the most anomalous is {run.images.nlargest(1, 'image_score').image_id.item()}")
