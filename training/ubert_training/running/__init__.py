"""What every stage runs with: its directory, device, processes and progress bars."""
