"""Inspecting a model: module tree, drawing, attention maps, expert choices, nearest tokens in the embedding table."""
