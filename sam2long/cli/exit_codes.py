"""What a command exits with when it was not simply done."""

INCOMPLETE = 1  # some of what was asked for is there, and some is not
USER_ERROR = 2  # also what a wrong flag exits with
INTERRUPTED = 130  # as shells count it: 128 + SIGINT
UNREAD = 141  # 128 + SIGPIPE
