"""Download: bring a resolved checkpoint to this machine and prove its content."""
