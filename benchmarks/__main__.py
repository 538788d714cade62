"""Run every benchmark and rewrite RESULTS.md: `python -m benchmarks`."""

from __future__ import annotations

from pathlib import Path

from benchmarks import clustering, dcnv3, evaluation, network
from benchmarks.timing import REPEATS, Comparison, machine
from oodray.job.process_memory import keep_freed_memory

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measure, print, write."""
    of_evaluation = evaluation.run()
    keep_freed_memory()  # as a worker does
    of_network, parts = network.run()
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench`, {machine()}. Both ways in turn, medians of {REPEATS} runs, of "
            f"{network.REPEATS} where a network is run; the ratio is the median of the ratios.",
            "",
            *_comparisons([of_evaluation, *dcnv3.run(), *clustering.run(), *of_network]),
            "",
            *_roofline(parts),
            "",
        ]
    )
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def _comparisons(comparisons: list[Comparison]) -> list[str]:
    return [
        "| what | ours | time | theirs | time | ratio | difference |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {c.what} | {c.ours} | {c.our_seconds:.3f} s | {c.theirs} | {c.their_seconds:.3f} s "
            f"| **{c.ratio:.1f}x** | {c.difference:.1e} |"
            for c in comparisons
        ),
    ]


def _roofline(parts: list[network.Part]) -> list[str]:
    """How fast the network's products go, beside the fastest that this machine was seen to do."""
    fastest = max(part.rate for part in parts)
    return [
        "## InternImage-L + UPerNet in float32, and the machine",
        "",
        "Floating-point operations of convolutions and linear layers alone; whatever else a part does counts as time.",
        "",
        "| what | GFLOP | time | GFLOP/s | of the fastest |",
        "|---|---|---|---|---|",
        *(
            f"| {part.what} | {part.gflop:,.0f} | {part.seconds:.2f} s | {part.rate:.0f} "
            f"| {100 * part.rate / fastest:.0f} % |"
            for part in parts
        ),
    ]


if __name__ == "__main__":
    main()
