"""The packed engine: many trials trained at once on one frozen base, each with everything of its own."""
