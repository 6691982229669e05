"""SAM2Long inside programs that people have open already, one module a host; nothing of a host is imported unless it
is there."""
