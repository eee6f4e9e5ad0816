"""What is around every route: connections, who is let in, and how an error is answered."""
