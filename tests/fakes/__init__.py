"""Fakes at the ports: what our code talks to, in memory."""
