"""Git's two filters: ``clean`` turns a checkpoint into a manifest, ``smudge`` a manifest into the checkpoint."""
