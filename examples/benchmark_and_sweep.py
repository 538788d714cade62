"""A benchmark and its best setting: `python examples/benchmark_and_sweep.py road-anomaly ROOT MODEL`.

The setting is chosen on the images that the last line reports, so it is better than on others; choose on a second
dataset for a number to publish.
"""

import sys

import oodray

dataset, root, model, out = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None
run = oodray.run(dataset=dataset, root=root, model=model, sweep_k=(3, 5, 8), out=out)
print(run.metrics[["score", "ap", "fpr95", "auroc"]].to_string(index=False))

print(run.evaluate(like="smiyc", bootstrap=200)[["score", "ap", "ap_low", "ap_high"]].to_string(index=False))

settings = run.sweep(tau="-2:12:0.5", ood_ratio="0:1:0.05")
print(settings.nlargest(1, "f1").to_string(index=False))
