"""One self-contained HTML file to decide from."""
