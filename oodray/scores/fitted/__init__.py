"""Scores that need statistics of in-distribution images: the statistics, and the mathematics of every such score.

Each module of a score has `fit_...`, from statistics to parameters, and what makes a score of parameters. Only what
needs features is computed on their grid; the maximum logit m and LSE, the log-sum-exp of the logits, are of the image.
"""
