"""Training: box-prompt fine-tuning and distillation, resumable anywhere."""
