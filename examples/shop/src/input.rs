//! Reads what users send: identifiers, quantities, names. Everything is checked before it reaches a query.

use axum::http::{HeaderMap, header};
use serde::Deserialize;

use crate::Failure;

/// Pieces of one product in a cart or an order.
pub const QUANTITY_MAX: i32 = 99;
/// Bytes of an `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 200;
/// Bytes of a name or an e-mail address (RFC 5321, section 4.5.3.1, allows 254 for the latter).
const TEXT_BYTES_MAX: usize = 254;
/// The cookie that holds a cart's id.
const CART_COOKIE: &str = "cart";

/// A UUID in its usual spelling, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uuid(String);

impl Uuid {
    /// Takes 8-4-4-4-12 hexadecimal digits (RFC 9562, section 4).
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        shaped.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Its spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The cart named by the request's cookie, if there is one.
pub fn cart_id(headers: &HeaderMap) -> Option<Uuid> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == CART_COOKIE)
        .and_then(|(_, value)| Uuid::parse(value))
}

/// The `Set-Cookie` that names a cart for 30 days.
pub fn cart_cookie(cart: &Uuid) -> String {
    format!("{CART_COOKIE}={}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax", cart.as_str())
}

/// The request's `Idempotency-Key`, if it carries one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(|key| Some(key.to_owned()))
        .ok_or(Failure::Invalid("Idempotency-Key must be 1 to 200 printable ASCII characters"))
}

/// A quantity within 1..=[`QUANTITY_MAX`].
pub fn quantity(pieces: i32) -> Result<i32, Failure> {
    if (1..=QUANTITY_MAX).contains(&pieces) {
        Ok(pieces)
    } else {
        Err(Failure::Invalid("a quantity must be between 1 and 99"))
    }
}

/// Who orders.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// As on the parcel.
    pub name: String,
    /// Names the customer.
    pub email: String,
}

impl Customer {
    /// Trims both, and refuses what cannot be a name or an address.
    pub fn check(self) -> Result<Self, Failure> {
        let name = printable(&self.name).ok_or(Failure::Invalid("a name must be 1 to 254 bytes of text"))?;
        let email = printable(&self.email)
            .filter(|email| {
                email.split_once('@').is_some_and(|(local, host)| {
                    !local.is_empty() && !host.is_empty() && !host.contains('@') && !email.contains(' ')
                })
            })
            .ok_or(Failure::Invalid("an e-mail address must look like name@host"))?;
        Ok(Self { name, email: email.to_lowercase() })
    }
}

fn printable(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_cart_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        let line = "theme=dark; cart=6F9619FF-8B86-D011-B42D-00C04FC964FF";
        headers.insert(header::COOKIE, HeaderValue::from_static(line));
        assert_eq!(cart_id(&headers).unwrap().as_str(), "6f9619ff-8b86-d011-b42d-00c04fc964ff");
    }

    #[test]
    fn what_is_no_uuid_names_no_cart() {
        for text in ["", "6f9619ff8b86d011b42d00c04fc964ff", "6f9619ff-8b86-d011-b42d-00c04fc964f'"] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_without_a_host_is_refused() {
        let customer = |email: &str| Customer { name: "Ada".to_owned(), email: email.to_owned() }.check();
        assert!(customer("ada@").is_err());
        assert!(customer("a da@example.org").is_err());
        assert_eq!(customer(" Ada@Example.org ").unwrap().email, "ada@example.org");
    }
}
