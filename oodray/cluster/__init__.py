"""Ray: starting or joining it, what its machines have, and which workers it gives."""
