"""Attach, load and continue adapters: any method of peft, and full fine-tuning."""
