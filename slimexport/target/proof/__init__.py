"""What a file gives held against what it should give: how far it is off, and whether it still tells images apart."""
