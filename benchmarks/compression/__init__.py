"""What the codecs and the lazy rule save: uploads, bits, and accuracy against bytes."""
