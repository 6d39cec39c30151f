"""From predictions to a plate: rank, filter, choose, export."""
