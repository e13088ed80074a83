"""What makes frameworks fit."""
