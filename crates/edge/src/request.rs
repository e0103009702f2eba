//! What a request asks for, whichever version of HTTP it came by: one host, one target, a safe method or not.

use http::{
    HeaderMap, HeaderValue, Method, Uri, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use crate::head::Refusal;

/// A request's head in the form in which it goes on: HTTP/1.1, the target without scheme and host.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
    /// The host that was asked for; `headers` names it too.
    pub(crate) host: HeaderValue,
}

impl Asked {
    /// Checks the host and the target, and puts the headers in order.
    pub(crate) fn settle(parts: Parts) -> Result<Self, Refusal> {
        let Parts { method, uri, mut headers, .. } = parts;
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal::Method);
        }
        let host = host_of(&uri, &headers)?;
        let target = target_of(&method, uri)?;
        headers.insert(header::HOST, host.clone());
        join_cookies(&mut headers);
        Ok(Self { method, target, headers, host })
    }

    /// Changes nothing at the app (RFC 9110 section 9.2.1).
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// May be done twice (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method, Method::PUT | Method::DELETE)
    }

    /// The label value of its method.
    pub(crate) fn method_label(&self) -> &'static str {
        if self.is_safe() { "safe" } else { "write" }
    }

    /// It asks to go on in another protocol: an `Upgrade` that `Connection` names (RFC 9110 section 7.8), other than
    /// to HTTP itself, which this edge would have to speak.
    pub(crate) fn wants_upgrade(&self) -> bool {
        let named = self.headers.get_all(header::CONNECTION).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade")))
        });
        let to = self.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
        named && to.is_some_and(|to| !to.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2")))
    }
}

/// HTTP/2 may split `Cookie`; HTTP/1.1 knows one line only (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// An absolute target's host wins over `Host` (RFC 9112 section 3.2.2), and so does HTTP/2's `:authority`
/// (RFC 9113 section 8.3.1). Two `Host` lines are refused in any case.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut given = headers.get_all(header::HOST).iter();
    let (host, more) = (given.next(), given.next());
    if more.is_some() {
        return Err(Refusal::Host);
    }
    let host = host.map(|host| host.to_str().map_err(|_| Refusal::Host)).transpose()?;
    let chosen = match (uri.authority().map(Authority::as_str), host) {
        (Some(absolute), _) => absolute,
        (None, Some(host)) => host,
        (None, None) => return Err(Refusal::Host),
    };
    let authority: Authority = chosen.parse().map_err(|_| Refusal::Host)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(Refusal::Host);
    }
    HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)
}

fn target_of(method: &Method, uri: Uri) -> Result<Uri, Refusal> {
    let parts = uri.into_parts();
    if parts.scheme.as_ref().is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
        return Err(Refusal::Target);
    }
    let absolute = parts.authority.is_some();
    if absolute && parts.scheme.is_none() {
        // A bare host is for CONNECT alone (RFC 9112 section 3.2.3).
        return Err(Refusal::Target);
    }
    let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    match path.as_str() {
        "*" if *method == Method::OPTIONS => Ok(Uri::from_static("*")),
        text if text.starts_with('/') => Ok(Uri::from(path)),
        // `OPTIONS http://host` without a path asks about the server as a whole (RFC 9112 section 3.2.4).
        "" if absolute => Ok(Uri::from_static(if *method == Method::OPTIONS { "*" } else { "/" })),
        text if absolute && text.starts_with('?') => format!("/{text}").parse().map_err(|_| Refusal::Target),
        _ => Err(Refusal::Target),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(method: &str, uri: &str, hosts: &[&str], expect: Result<(&str, &str), Refusal>) {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = Asked::settle(parts)
            .map(|asked| (asked.host.to_str().unwrap().to_owned(), asked.target.to_string()));
        let expect = expect.map(|(host, target)| (host.to_owned(), target.to_owned()));
        assert_eq!(found, expect, "{method} {uri} {hosts:?}");
    }

    #[test]
    fn there_is_exactly_one_host() {
        check("GET", "/", &["a.example:80"], Ok(("a.example:80", "/")));
        check("GET", "/", &["[::1]:80"], Ok(("[::1]:80", "/")));
        check("GET", "/", &[], Err(Refusal::Host));
        check("GET", "/", &["a", "a"], Err(Refusal::Host));
        check("GET", "/", &[""], Err(Refusal::Host));
        check("GET", "/", &["a b"], Err(Refusal::Host));
        check("GET", "/", &["user@a"], Err(Refusal::Host));
        check("GET", "/", &["a/b"], Err(Refusal::Host));
    }

    #[test]
    fn an_absolute_target_names_the_host_and_goes_on_without_it() {
        check("GET", "http://b.example/x?y", &["a"], Ok(("b.example", "/x?y")));
        check("GET", "http://b.example", &["a"], Ok(("b.example", "/")));
        check("GET", "http://u@b.example/", &["a"], Err(Refusal::Host));
        check("GET", "b.example", &["a"], Err(Refusal::Target));
        check("GET", "ftp://b.example/", &["a"], Err(Refusal::Target));
    }

    #[test]
    fn only_options_may_ask_about_everything() {
        check("OPTIONS", "*", &["a"], Ok(("a", "*")));
        check("GET", "*", &["a"], Err(Refusal::Target));
    }

    #[test]
    fn methods_that_reflect_or_tunnel_are_refused() {
        check("TRACE", "/", &["a"], Err(Refusal::Method));
        check("CONNECT", "a:80", &["a"], Err(Refusal::Method));
    }
}
