//! Refuses request heads that two programs could read in two ways (request smuggling), before hyper sees them.
//!
//! hyper is lenient here: of `Content-Length` beside `Transfer-Encoding` it drops the first, a repeated
//! `Content-Length` it folds. That is right for one server, and dangerous for a chain of them. Checks that need no
//! raw bytes (`Host`, the target) are in [`request`](crate::request).

use http::StatusCode;

/// Longest request head, in bytes; what is longer is answered 431, or 414 when the request line alone is longer.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header fields in a request head; more are answered 431.
pub(crate) const HEADERS_MAX: usize = 100;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The next head.
    Nothing,
    /// So many bytes.
    Sized(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
}

/// What the gate learnt from a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// What follows it.
    pub(crate) framing: Framing,
    /// It asks for another protocol, so that what follows may not be HTTP.
    pub(crate) upgrade: bool,
}

/// Why a request is refused by this edge itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("a header line is malformed")]
    HeaderLine,
    #[error("exactly one valid Host is needed")]
    Host,
    #[error("Content-Length is malformed or repeated")]
    Length,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    TwoLengths,
    #[error("Transfer-Encoding must be given once and be chunked")]
    Coding,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the request head is too large")]
    HeadTooLarge,
    #[error("only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here")]
    Version,
    #[error("the request head took too long to arrive")]
    Late,
    #[error("this method is not served here")]
    Method,
}

impl Refusal {
    /// The status it is answered with.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::RequestLine
            | Self::HeaderLine
            | Self::Host
            | Self::Length
            | Self::TwoLengths
            | Self::Target => StatusCode::BAD_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The word it is counted by.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::HeaderLine => "header_line",
            Self::Host => "host",
            Self::Length => "length",
            Self::TwoLengths => "two_lengths",
            Self::Coding => "transfer_coding",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::Version => "version",
            Self::Late => "head_late",
            Self::Method => "method",
        }
    }
}

/// Where the head that starts `bytes` ends: after its first empty line. `from` is where to go on searching.
pub(crate) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut line_start = bytes[..from].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    while let Some(length) = bytes[line_start..].iter().position(|&b| b == b'\n') {
        let line = &bytes[line_start..line_start + length];
        line_start += length + 1;
        if line.is_empty() || line == b"\r" {
            return Some(line_start);
        }
    }
    None
}

/// Reads one whole HTTP/1 head, its empty line included, as strictly as RFC 9112 allows.
pub(crate) fn examine(head: &[u8]) -> Result<Head, Refusal> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(Refusal::HeaderLine)?;
    let mut lines = Lines(Some(text));
    let minor = request_line(lines.next().unwrap_or_default())?;

    let (mut count, mut length, mut chunked, mut upgrade) = (0, None, false, false);
    for line in lines {
        count += 1;
        if count > HEADERS_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        let (name, value) = header_line(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Refusal::Length);
            }
            length = Some(digits(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if minor == 0 || chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Coding);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        }
    }
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(Refusal::TwoLengths),
        (None, true) => Framing::Chunked,
        (Some(0) | None, false) => Framing::Nothing,
        (Some(length), false) => Framing::Sized(length),
    };
    Ok(Head { framing, upgrade })
}

/// Cuts at CR LF only, so that a bare CR or LF stays inside a line, where it is refused.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match rest.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => {
                self.0 = Some(&rest[at + 2..]);
                Some(&rest[..at])
            }
            None => {
                self.0 = None;
                Some(rest)
            }
        }
    }
}

/// Gives the minor version.
fn request_line(line: &[u8]) -> Result<u8, Refusal> {
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
        return Err(Refusal::RequestLine);
    }
    if target.is_empty() || !target.iter().all(|&b| b > b' ' && b < 0x7f) {
        return Err(Refusal::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        _ if version.starts_with(b"HTTP/") => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}

/// Gives the name and the trimmed value. A line that begins with white space is obsolete folding: refused.
fn header_line(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = line.iter().position(|&b| b == b':').ok_or(Refusal::HeaderLine)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let sound = !name.is_empty()
        && name.iter().all(|&b| is_token(b))
        && value.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f));
    if sound { Ok((name, value)) } else { Err(Refusal::HeaderLine) }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `Content-Length` is digits alone: no sign, no list.
fn digits(value: &[u8]) -> Result<u64, Refusal> {
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if plain {
        Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    } else {
        Err(Refusal::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expect: Result<Framing, Refusal>) {
        assert_eq!(examine(head.as_bytes()).map(|head| head.framing), expect, "{head:?}");
    }

    #[test]
    fn a_body_is_as_long_as_exactly_one_header_says() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::Nothing));
        check("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", Ok(Framing::Sized(12)));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok(Framing::Chunked));
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Err(Refusal::Length));
        check("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Err(Refusal::Length));
        check("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Err(Refusal::Length));
        check("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", Err(Refusal::Length));
        let both = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(both, Err(Refusal::TwoLengths));
        let turned = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n";
        check(turned, Err(Refusal::TwoLengths));
    }

    #[test]
    fn a_coding_other_than_chunked_once_is_not_spoken() {
        check("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(Refusal::Coding));
        check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Refusal::Coding));
        let twice = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(twice, Err(Refusal::Coding));
    }

    #[test]
    fn line_ends_and_names_are_taken_literally() {
        check("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(Refusal::HeaderLine));
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(Refusal::RequestLine));
        check("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err(Refusal::HeaderLine));
        check("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", Err(Refusal::HeaderLine));
        check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(Refusal::HeaderLine));
        check("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Err(Refusal::HeaderLine));
        check("GET / HTTP/1.1\r\nno colon\r\n\r\n", Err(Refusal::HeaderLine));
        check("GET  / HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine));
        check("GET /\r\n\r\n", Err(Refusal::RequestLine));
        check("GET / HTTP/2.0\r\n\r\n", Err(Refusal::Version));
        check("\r\n\r\n", Err(Refusal::RequestLine));
    }

    #[test]
    fn a_head_of_more_than_a_hundred_fields_is_too_large() {
        let of = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        check(&of(HEADERS_MAX), Ok(Framing::Nothing));
        check(&of(HEADERS_MAX + 1), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_the_search_goes_on() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for from in 0..25 {
            assert_eq!(end_of_head(head, from), Some(27), "{from}");
        }
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\r\n", 0), None);
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\nrest", 0), Some(16));
    }
}
