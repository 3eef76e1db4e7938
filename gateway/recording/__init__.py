"""Terminal sessions as asciicast files: a tap on the hijacked bytes, and the decoders of both protocols."""
