"""Settings of hypothesis for this room: no deadline, since cores are shared."""

from hypothesis import settings

settings.register_profile("protocol", deadline=None, max_examples=60)
settings.load_profile("protocol")
