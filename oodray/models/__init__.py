"""Image to logits and features."""
