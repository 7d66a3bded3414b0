"""The classes and calls that users know, and their options."""
