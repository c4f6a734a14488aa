"""The slimmable network: layers with an active width, the norms of every plan, calibration."""
