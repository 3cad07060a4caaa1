"""Care: what is stored is checked, measured, made smaller, and removed when nothing needs it."""
