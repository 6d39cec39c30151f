"""From what the lab measured for the picks to the next round."""
