"""Logits and features to mask and scores."""
