"""An ARM processor on another one: LiteRT's released aarch64 package under qemu's user mode."""
