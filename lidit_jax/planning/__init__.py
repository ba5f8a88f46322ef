"""What a run would need and how fast it could be, before any chip is rented."""
