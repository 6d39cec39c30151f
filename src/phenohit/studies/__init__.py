"""Published experiments as short scripts over the pieces of this package."""
