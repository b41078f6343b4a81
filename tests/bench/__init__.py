"""Figures, measured on real time and real databases."""
