"""Places on disks and in object stores, and files that appear whole or not at all."""
