"""Training of the networks: pairs, loss, loop."""
