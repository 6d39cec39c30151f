"""The three objects that carry everything, the readers of tables, and the simulated screen."""
