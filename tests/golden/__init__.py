"""Golden values: numbers of a known version, which later versions must reproduce."""
