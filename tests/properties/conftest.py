"""No deadline for a single example: a shared machine stalls now and then."""

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
