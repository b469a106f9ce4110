"""The built-in city's living world: SUMO, weather, air, and what goes wrong in them."""
