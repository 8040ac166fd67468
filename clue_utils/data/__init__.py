"""Official files: finding, fetching, reading and checking them."""
