//! How two edges talk: a signed stamp on a request that one sends on to the other, and an answer "not served" that
//! promises that no app saw the request.
//!
//! The stamp proves who sent a request on and under which epoch. It hides nothing and does not expire: between
//! regions the network itself must be private or encrypted.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use isles_model::{Epoch, RegionName};
use sha2::Sha256;

/// Carries the stamp: `hops;origin;epoch;signature`, the epoch `-` for a request that is not a write.
const HOP: HeaderName = HeaderName::from_static("isles-hop");
/// On a stamped request: answer at once, without the app. On the answer: a peer's edge has read the stamp.
const PING: HeaderName = HeaderName::from_static("isles-ping");
/// On an answer between edges: no app has seen the request.
const NOT_SERVED: HeaderName = HeaderName::from_static("isles-not-served");
/// Longest stamp read, in bytes.
const STAMP_BYTES_MAX: usize = 256;

/// What one edge tells the other about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// How many edges have sent it on.
    pub(crate) hops: u8,
    /// Whose edge took it from the user.
    pub(crate) origin: RegionName,
    /// Under which epoch a write was sent on.
    pub(crate) epoch: Option<Epoch>,
}

/// Why an edge did not serve a request that another sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotServed {
    /// The two do not agree on the epoch.
    Epoch,
    /// No healthy app instance.
    NoApp,
    /// The region may not serve it just now.
    NotHere,
}

impl NotServed {
    /// As a header value and as a label value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::NoApp => "no_app",
            Self::NotHere => "not_here",
        }
    }

    /// What a peer's answer says, if it says so.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(NOT_SERVED)?.as_bytes();
        [Self::Epoch, Self::NoApp]
            .into_iter()
            .find(|this| this.as_str().as_bytes() == value)
            .or(Some(Self::NotHere))
    }

    /// Says so in an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(NOT_SERVED, HeaderValue::from_static(self.as_str()));
    }
}

/// Marks a stamped request as a ping, or an answer as one's.
pub(crate) fn mark_ping(headers: &mut HeaderMap) {
    headers.insert(PING, HeaderValue::from_static("1"));
}

/// Whether an answer is a ping's.
pub(crate) fn is_pong(headers: &HeaderMap) -> bool {
    headers.contains_key(PING)
}

/// Signs and reads stamps with the secret that all agents of one application share.
#[derive(Clone)]
pub(crate) struct Seal(Hmac<Sha256>);

impl Seal {
    /// With this secret.
    pub(crate) fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length"))
    }

    /// Puts a stamp on a request.
    pub(crate) fn stamp(&self, stamp: &Stamp, method: &Method, target: &Uri, headers: &mut HeaderMap) {
        let text = text_of(stamp);
        let signature = self.over(&text, method, target).finalize().into_bytes();
        let signature = signature.iter().fold(String::with_capacity(64), |mut hex, byte| {
            hex.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
            hex
        });
        if let Ok(value) = HeaderValue::try_from(format!("{text};{signature}")) {
            headers.insert(HOP, value);
        }
    }

    /// The stamp of a request, if it carries a true one, and whether it is a ping.
    pub(crate) fn read(&self, method: &Method, target: &Uri, headers: &HeaderMap) -> Option<(Stamp, bool)> {
        let value = headers.get(HOP).filter(|value| value.len() <= STAMP_BYTES_MAX)?.to_str().ok()?;
        let (text, signature) = value.rsplit_once(';')?;
        let signature = unhex(signature)?;
        self.over(text, method, target).verify_slice(&signature).ok()?;
        let mut fields = text.split(';');
        let hops = fields.next()?.parse().ok()?;
        let origin = fields.next()?.parse().ok()?;
        let epoch = match fields.next()? {
            "-" => None,
            epoch => Some(Epoch(epoch.parse().ok()?)),
        };
        Some((Stamp { hops, origin, epoch }, headers.contains_key(PING)))
    }

    fn over(&self, text: &str, method: &Method, target: &Uri) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in ["isles-hop", method.as_str(), &target.to_string(), text] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac
    }
}

fn text_of(stamp: &Stamp) -> String {
    match stamp.epoch {
        Some(epoch) => format!("{};{};{epoch}", stamp.hops, stamp.origin),
        None => format!("{};{};-", stamp.hops, stamp.origin),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut HeaderMap), reader: &str, expect: bool) {
        let stamp = Stamp { hops: 1, origin: "eu-west-1".parse().unwrap(), epoch: Some(Epoch(7)) };
        let target = Uri::from_static("/orders?id=1");
        let mut headers = HeaderMap::new();
        Seal::new("one secret").stamp(&stamp, &Method::POST, &target, &mut headers);
        change(&mut headers);
        let found = Seal::new(reader).read(&Method::POST, &target, &headers);
        assert_eq!(found, expect.then_some((stamp, false)));
    }

    #[test]
    fn a_stamp_is_read_only_with_the_secret_it_was_made_with() {
        check(|_| (), "one secret", true);
        check(|_| (), "another secret", false);
    }

    #[test]
    fn a_changed_stamp_is_no_stamp() {
        let with = |value: &'static str| {
            move |headers: &mut HeaderMap| {
                headers.insert(HOP, HeaderValue::from_static(value));
            }
        };
        check(with("1;eu-west-1;7;00"), "one secret", false);
        check(with("1;eu-west-1;7;"), "one secret", false);
        check(with(";;;"), "one secret", false);
        check(with("x"), "one secret", false);
        let raise = |headers: &mut HeaderMap| {
            let raised = headers[HOP].to_str().unwrap().replace(";7;", ";8;");
            headers.insert(HOP, raised.parse().unwrap());
        };
        check(raise, "one secret", false);
    }
}
