"""What is put right after an end that did not come to it: cleanup and resolve."""
