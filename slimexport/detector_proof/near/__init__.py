"""Which detections hang on roundings, followed in float64 from the maps on."""
