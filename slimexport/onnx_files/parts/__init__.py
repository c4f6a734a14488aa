"""Networks of which only parts get fewer bits: what is chosen of their numbers stays float32."""
