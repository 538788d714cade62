"""Training the networks that oodray carries or measures itself with."""
