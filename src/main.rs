//! One result to one exit status.

fn main() {}
