//! The public port. (being built)
