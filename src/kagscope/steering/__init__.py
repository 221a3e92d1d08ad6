"""Training towards geometry or away from it."""
