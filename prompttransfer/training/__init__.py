"""Learning adaptations on a frozen backbone with Lightning: recipes, batches, state, progress, memory."""
