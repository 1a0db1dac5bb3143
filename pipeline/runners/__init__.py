"""Where requests run. `attempt` decides what happens to one request; the other modules decide where and when."""
