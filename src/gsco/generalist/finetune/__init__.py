"""Fine-tuning of any image-text-to-text model of transformers, on data in InternVL's format."""
