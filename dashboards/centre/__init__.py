"""The operations centre's server: a read-only, bounded picture of one city."""
