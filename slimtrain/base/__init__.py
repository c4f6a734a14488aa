"""What every folder stands on: errors with their exit codes, files, text, options, the command's messages. No torch."""
