"""What the network itself gives in float64, which files are held against: how that is computed in little memory."""
