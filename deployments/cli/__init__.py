"""The command line `apinizer-upgrade`: options in, lines and exit codes out; the work is the flows' and tasks'."""
