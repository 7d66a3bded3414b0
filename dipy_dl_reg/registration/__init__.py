"""The public registration classes and functions, and their options."""
