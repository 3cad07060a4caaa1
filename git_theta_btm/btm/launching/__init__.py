"""Launchers: how the trainings of several experts are run."""
