"""What other packages need to use the registrations of this package."""
