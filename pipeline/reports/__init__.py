"""Pages about migrations that open anywhere: one file, no network, light and dark, and on paper."""
