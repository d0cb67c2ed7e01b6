"""Built-in architectures; torch is imported only when one is built."""
