"""MedDr-nano: the embedded default generalist (EfficientNet-Lite0, 49 tokens, SmolLM2-135M, LoRA)."""
