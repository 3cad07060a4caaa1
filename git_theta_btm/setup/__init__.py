"""Setup: what makes git use the filters, and what describes it."""
