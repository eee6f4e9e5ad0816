"""Fine-tuning (Figure 3): histories, the bias model, the task, and reading a finished run."""
