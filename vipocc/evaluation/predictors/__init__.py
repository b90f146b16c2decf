"""What is evaluated: our networks, depth turned into occupancy, predictions from a folder, constant guesses."""
