//! Headers that belong to one connection are taken off before a message goes on, and where it came from is written
//! anew, so that nobody can claim another's address.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Ends at the next recipient, whether or not `Connection` names it (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Headers that begin so are this product's own.
const OWN_PREFIX: &str = "isles-";

/// Takes off what belongs to one connection, and what `Connection` nominates.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Because a client may not take away what decides where its request goes and how long it is.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes a request ready to go on: nothing of the last connection, nothing in the name of this product. Says
/// `TE: trailers` again if it was said.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|coding| coding.trim() == "trailers"))
    });
    remove_hop_by_hop(headers);
    // The edge itself asks for the body.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    remove_prefixed(headers, OWN_PREFIX);
}

/// Makes an app's response ready to go on.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove_prefixed(headers, OWN_PREFIX);
}

/// Says where a request came from (RFC 7239, and the older headers that apps read), whatever it said itself.
pub(crate) fn stamp_origin(headers: &mut HeaderMap, client: IpAddr, host: &HeaderValue) {
    remove_prefixed(headers, "x-forwarded-");
    headers.remove("x-real-ip");
    let address = client.to_canonical().to_string();
    let node = if address.contains(':') { format!("\"[{address}]\"") } else { address.clone() };
    if let Ok(address) = HeaderValue::try_from(address) {
        headers.insert(FORWARDED_FOR, address);
    }
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    let host = host.to_str().unwrap_or_default();
    match HeaderValue::try_from(format!("for={node};host=\"{host}\";proto=http")) {
        Ok(forwarded) => headers.insert(header::FORWARDED, forwarded),
        Err(_) => headers.remove(header::FORWARDED),
    };
}

fn remove_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    fn check(lines: &[(&str, &str)], expect: &[&str]) {
        let mut found = headers(lines);
        clean_request(&mut found);
        let mut names: Vec<_> = found.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expect, "{lines:?}");
    }

    #[test]
    fn what_connection_nominates_goes_no_further() {
        check(&[("connection", "close, X-Secret"), ("x-secret", "1"), ("accept", "*/*")], &["accept"]);
        check(&[("connection", "host"), ("host", "a")], &["host"]);
        check(&[("keep-alive", "1"), ("upgrade", "h2c"), ("te", "gzip")], &[]);
        check(&[("te", "gzip, trailers")], &["te"]);
    }

    #[test]
    fn nobody_speaks_in_the_name_of_the_product() {
        check(&[("isles-hop", "x"), ("isles-region", "x"), ("cookie", "a=b")], &["cookie"]);
    }

    #[test]
    fn the_clients_address_is_written_anew() {
        let mut found = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
        ]);
        stamp_origin(&mut found, "::1".parse().unwrap(), &HeaderValue::from_static("a.example"));
        let expect = headers(&[
            ("x-forwarded-for", "::1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=\"[::1]\";host=\"a.example\";proto=http"),
        ]);
        assert_eq!(found, expect);
    }
}
