"""From raw images to views, cells and features."""
