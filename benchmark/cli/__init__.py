"""The command line: a module per group of commands; only here is printed or exited."""
