//! Any sequence of commands: what must hold after each of them.
