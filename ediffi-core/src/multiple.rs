//! Common divisors and multiples of whole numbers, such as the sides of pictures.

/// The greatest common divisor of two numbers that are not negative.
#[must_use]
pub fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The lowest common multiple of two positive numbers; the largest number where it would overflow.
#[must_use]
pub fn lcm(a: i64, b: i64) -> i64 {
    (a / gcd(a, b).max(1)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_and_multiples() {
        assert_eq!((gcd(12, 18), gcd(7, 5), gcd(0, 4), gcd(4, 0)), (6, 1, 4, 4));
        assert_eq!((lcm(4, 6), lcm(1, 8), lcm(8, 8)), (12, 8, 8));
        assert_eq!(lcm(i64::MAX, 2), i64::MAX);
    }
}
