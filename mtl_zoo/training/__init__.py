"""Training: callbacks that measure exactly."""
