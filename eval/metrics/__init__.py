"""The measures themselves: arrays and numbers in, numbers out. No files, no datasets, no protocol."""
