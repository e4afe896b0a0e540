"""How far engines of random networks agree with the libraries that made the networks."""
