"""Logits → loss → weights."""
