//! The server's address: `server_address` to the URL that requests begin with.

/// The URL of the server, without a slash at its end; None if it is none.
///
/// A path is not accepted: the original never used one, and would have asked
/// the root of the server all the same.
pub(super) fn url(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.trim_end_matches('/');
    let is_http = matches!(scheme.as_str(), "http" | "https");
    (is_http && is_authority(authority)).then(|| format!("{scheme}://{authority}"))
}

/// `host`, `host:port` or the same with an IPv6 address in brackets.
fn is_authority(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && !text.starts_with(['.', '-']) && text.bytes().all(allowed)
}

fn is_port(text: &str) -> bool {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    is_digits && text.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_urls() {
        for (address, expected) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("testflinger", "http://testflinger"),
            ("httpd.example.com", "http://httpd.example.com"),
            ("http://a_b.example:80/", "http://a_b.example:80"),
            ("HTTPS://Example.com//", "https://Example.com"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("https://[fe80::1]", "https://[fe80::1]"),
        ] {
            assert_eq!(url(address).as_deref(), Some(expected));
        }
        for address in [
            "",
            "/",
            "http://",
            "ftp://host",
            "user@host",
            "https://user:word@host",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "::1",
            "[::1",
            "[::1]80",
            "[host]",
            "http://host/api",
            "http://host?x",
            "http://host#x",
            "a host",
            "hôst",
            "-host",
            "http:/host",
        ] {
            assert_eq!(url(address), None, "{address}");
        }
    }
}
