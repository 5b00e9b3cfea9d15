"""What a user holds: captioners, and the parts that they are made of."""
