"""The command line: words on a screen. What a command does is a method of a room below."""
