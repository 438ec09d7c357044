"""Machines that train: what fits them, what moves between them, how long that takes and what it costs. Numbers only."""
