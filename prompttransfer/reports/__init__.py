"""One self-contained page of a run, its pictures and the commands that make it again."""
