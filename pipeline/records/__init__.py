"""What each end of a session keeps on disk."""
