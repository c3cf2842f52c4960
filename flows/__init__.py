"""What runs: the flows, the recipe and the `cocktail` command."""
