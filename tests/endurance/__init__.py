"""Starting and stopping by the hundred: what is left of it, which has to be nothing."""
