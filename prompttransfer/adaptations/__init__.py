"""What is trained on a frozen backbone and kept: adaptations, their folders on disk, starts, exchange with other formats."""
