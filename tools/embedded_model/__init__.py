"""How the embedded model was made: its world, its text, its training, its two exports."""
