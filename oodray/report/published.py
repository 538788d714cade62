"""What the paper printed, cited beside what is measured: Tables 1 and 2 of arXiv 2510.02909."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of a published table; AP and FPR95 in percent, as printed."""

    method: str
    ap: float
    fpr95: float


TABLES: dict[str, tuple[str, tuple[Published, ...]]] = {
    "road-anomaly": (
        "Table 1",
        (
            Published("OodDINO", 95.21, 2.11),
            Published("RbA", 90.28, 4.92),
            Published("DOoD", 89.10, 8.80),
            Published("cDNP", 85.60, 9.80),
            Published("Mask2Anomaly", 79.70, 13.45),
            Published("RPL+CoroCL", 71.61, 17.74),
            Published("InternImage-L (the paper's)", 50.02, 61.55),
            Published("PEBAL", 45.10, 44.58),
            Published("SynBoost", 41.83, 59.72),
            Published("InternImage-B (the paper's)", 37.30, 70.38),
            Published("SML", 25.82, 49.74),
            Published("SynthCP", 24.86, 64.69),
        ),
    ),
    "ade-ood": (
        "Table 2",
        (
            Published("RbA", 66.82, 82.42),
            Published("DOoD", 63.03, 36.50),
            Published("cDNP", 62.35, 39.20),
            Published("InternImage-L (the paper's)", 48.77, 69.36),
            Published("GMMSeg", 47.60, 43.50),
            Published("InternImage-B (the paper's)", 33.09, 72.17),
            Published("Maskomaly", 28.23, 82.68),
            Published("Mask2Anomaly", 18.23, 86.53),
        ),
    ),
}
"""By dataset: the table's name and its rows, best AP first."""
