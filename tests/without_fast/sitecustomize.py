"""On the path of the processes that tests start: they run as installed without the extra `fast`, and start sooner."""

import sys

sys.modules["toktok"] = None  # type: ignore[assignment]  # Python's own mark for what can't be imported
