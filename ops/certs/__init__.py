"""The fleet's certificates: what each proves, who issued it, and until when."""
