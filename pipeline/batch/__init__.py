"""Many migrations: what a plan means, who may begin when, how long it takes, what is kept of it."""
