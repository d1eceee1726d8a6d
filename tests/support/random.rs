//! Numbers that nobody foresees and a seed repeats.

/// A number below `end`, of a sequence that its seed determines (xorshift64).
pub fn random(state: &mut u64, end: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % end
}
