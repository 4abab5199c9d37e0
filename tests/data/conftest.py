"""Property tests here call PyTorch, whose first call is slow: no deadline. The same examples every time."""

from hypothesis import settings

settings.register_profile("glassgpt", deadline=None, derandomize=True, database=None)
settings.load_profile("glassgpt")
