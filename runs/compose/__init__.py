"""From words on a command line to the runs that they ask for."""
