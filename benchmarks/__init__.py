"""One run against a peer each; prints ratios."""
