"""Caption text to token ids and back."""
