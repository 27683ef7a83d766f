"""Starting clusters: inside a program, by mrun, and the hosts of engines."""
