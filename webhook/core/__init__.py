"""The decision, pure: no I/O, no clock, no framework. ``now`` is always an argument."""
