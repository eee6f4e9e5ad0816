"""What a request may read: which reviews of whom, and their states as the store has them."""
