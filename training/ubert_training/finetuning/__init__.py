"""Fine-tuning (Figure 3): histories, the bias model, the task, and what a finished run is."""
