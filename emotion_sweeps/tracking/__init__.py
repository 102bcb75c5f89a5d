"""Records of a run and who listens to them: metrics.jsonl always, Weights & Biases and TensorBoard on request."""
