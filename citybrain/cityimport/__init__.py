"""Recorded cities: tables of readings made into a city pack and a recording."""
