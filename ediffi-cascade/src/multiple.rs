//! Common multiples of sides.

/// The lowest common multiple of two positive numbers, or the largest number if it is too large: no side is a multiple of
/// that.
pub(crate) fn lcm(a: i64, b: i64) -> i64 {
    (a / gcd(a, b).max(1)).saturating_mul(b)
}

/// The greatest common divisor of two positive numbers.
pub(crate) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
