"""Load on a served bundle: requests that come at given times whatever becomes of them, and what came of each."""
