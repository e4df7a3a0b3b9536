"""Packing: the kept episodes of a day become one immutable LeRobot v3.0 dataset with a manifest."""
