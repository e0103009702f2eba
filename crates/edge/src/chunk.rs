//! The lines of a chunked body (RFC 9112 section 7.1), read so strictly that nobody can read them otherwise.

use std::io;

/// Longest line between two chunks, in bytes: a size with its extensions, or a trailer field.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// A body that cannot be followed: the connection ends.
pub(crate) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The length of the line `rest` begins with, without its CR LF; `None` while it is not complete.
pub(crate) fn line_of(rest: &[u8]) -> io::Result<Option<usize>> {
    let seen = &rest[..rest.len().min(CHUNK_LINE_BYTES_MAX)];
    match seen.iter().position(|&b| b == b'\n') {
        Some(at) if at > 0 && seen[at - 1] == b'\r' && !seen[..at - 1].contains(&b'\r') => Ok(Some(at - 1)),
        Some(_) => Err(malformed("a line between chunks ends with a bare line feed")),
        None if seen.len() == CHUNK_LINE_BYTES_MAX => Err(malformed("a line between chunks is too long")),
        None => Ok(None),
    }
}

/// The size of a chunk (RFC 9112 section 7.1); extensions are let through.
pub(crate) fn chunk_size(line: &[u8]) -> io::Result<u64> {
    let end = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, after) = line.split_at(end);
    let extended = after.first().is_none_or(|&b| b == b';');
    let text = std::str::from_utf8(size).map_err(|_| malformed("a chunk size is not a number"))?;
    if text.is_empty() || text.len() > 15 || !extended {
        return Err(malformed("a chunk size is not a number"));
    }
    u64::from_str_radix(text, 16).map_err(|_| malformed("a chunk size is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<u64>) {
        assert_eq!(chunk_size(line.as_bytes()).ok(), expect, "{line:?}");
    }

    #[test]
    fn a_chunk_size_is_hexadecimal_and_nothing_else() {
        check("0", Some(0));
        check("1aF", Some(0x1af));
        check("5;name=value", Some(5));
        for bad in ["", "0x5", "-5", "+5", "5 ", " 5", "5 ;a", "g", "ffffffffffffffff"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_line_ends_with_carriage_return_and_line_feed() {
        assert_eq!(line_of(b"5\r\nhello").unwrap(), Some(1));
        assert_eq!(line_of(b"\r\n").unwrap(), Some(0));
        assert_eq!(line_of(b"5\r").unwrap(), None);
        for bad in [&b"5\nhello"[..], b"\n", b"5\r\r\n", &[b'1'; CHUNK_LINE_BYTES_MAX]] {
            assert!(line_of(bad).is_err(), "{bad:?}");
        }
    }
}
