//! Prices: whole cents, never a fraction of one.

use std::fmt;

use serde::Serialize;

/// An amount in euro cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Cents(pub i64);

impl Cents {
    /// The price of `quantity` pieces; `None` past what 64 bits hold.
    pub fn times(self, quantity: i32) -> Option<Self> {
        self.0.checked_mul(i64::from(quantity)).map(Self)
    }

    /// The sum of all; `None` past what 64 bits hold.
    pub fn sum(amounts: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        amounts.into_iter().try_fold(Self(0), |sum, next| sum.0.checked_add(next?.0).map(Self))
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€\u{a0}{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_are_written_with_two_places() {
        assert_eq!(Cents(1905).to_string(), "€\u{a0}19.05");
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused() {
        assert_eq!(Cents::sum([Cents(3).times(2), Some(Cents(4))]), Some(Cents(10)));
        assert_eq!(Cents::sum([Cents(i64::MAX).times(2), Some(Cents(4))]), None);
    }
}
