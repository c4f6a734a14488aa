"""What tests share: stand-ins for devices, oracles, small networks and states, running the commands."""
