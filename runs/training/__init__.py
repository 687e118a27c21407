"""The training loop and what it needs: plain arguments, no configs, no folders."""
