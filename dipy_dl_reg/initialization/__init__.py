"""Where the optimisation begins, and which metric it minimises."""
