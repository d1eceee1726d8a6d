//! The way through a lab's proxy, as the environment names it: `http_proxy`,
//! `https_proxy`, `all_proxy` and `no_proxy`, in either case.

use std::net::IpAddr;
use ureq::{Proxy, ProxyProtocol};

/// The proxy that leads to a server, if one does.
///
/// # Errors
/// A sentence, when what is named is none. It says nothing of its password.
pub(super) fn of(
    server: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let Some((scheme, authority)) = server.split_once("://") else {
        return Ok(None);
    };
    let name = format!("{scheme}_proxy");
    let either = |name: &str| {
        let value = variable(name).or_else(|| variable(&name.to_ascii_uppercase()));
        value.filter(|value| !value.trim().is_empty())
    };
    let named = [name.as_str(), "all_proxy"].map(|name| (name, either(name)));
    let mut named = named.into_iter();
    let Some((name, proxy)) = named.find_map(|(name, proxy)| Some((name, proxy?))) else {
        return Ok(None);
    };
    let (host, port) = host_and_port(authority);
    let exempt = either("no_proxy").unwrap_or_default();
    if is_loopback(host) || is_exempt(host, port, &exempt) {
        return Ok(None);
    }
    let proxy = proxy.trim();
    let after_scheme = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let after_user = after_scheme
        .rsplit_once('@')
        .map_or(after_scheme, |(_, rest)| rest);
    // ureq takes another port for one that is none.
    let (_, port) = host_and_port(after_user);
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let usable = Proxy::new(proxy).ok().filter(|proxy| {
        let protocol = proxy.protocol();
        has_port && matches!(protocol, ProxyProtocol::Http | ProxyProtocol::Https)
    });
    match usable {
        Some(proxy) => Ok(Some(proxy)),
        None => Err(format!(
            "the variable {name} does not name a proxy that can be used; wanted: \
             http://[user:password@]host:port"
        )),
    }
}

/// `host:port`, `[::1]:port`, or a host alone.
fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    let authority = authority.split('/').next().unwrap_or_default();
    if let Some((host, port)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (host, port.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Another machine's loopback is not this one's.
fn is_loopback(host: &str) -> bool {
    let is_address = host
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

/// As most programs read the list: `*`, a domain with all below it, an address, a
/// network; each perhaps with a port.
fn is_exempt(host: &str, port: Option<&str>, list: &str) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        if let Some((network, length)) = entry.split_once('/') {
            return is_in(host, network, length);
        }
        let (name, of_port) = host_and_port(entry);
        if of_port.is_some() && of_port != port {
            return false;
        }
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let host = host.to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        name == "*"
            || host == name
            || host
                .strip_suffix(&name)
                .is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Whether an address is in a network, as `10.0.0.0/8`.
fn is_in(host: &str, network: &str, length: &str) -> bool {
    let (Ok(host), Ok(network)) = (host.parse(), network.parse()) else {
        return false;
    };
    let (host, network, bits) = match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => (
            u128::from(host.to_bits()),
            u128::from(network.to_bits()),
            32,
        ),
        (IpAddr::V6(host), IpAddr::V6(network)) => (host.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let length: Option<u32> = length.parse().ok();
    let Some(free) = length.and_then(|length| u32::checked_sub(bits, length)) else {
        return false;
    };
    let differs = host ^ network;
    differs.checked_shr(free).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: [(&str, &str); 3] = [
        ("http_proxy", "http://plain.example:3128"),
        ("HTTPS_PROXY", "user:secret@secure.example:8080"),
        (
            "NO_PROXY",
            "inside.example, .lab ,10.0.0.0/8,only.example:8443 fd00::/8",
        ),
    ];

    fn found(server: &str) -> Option<String> {
        let variable = |name: &str| {
            let found = ENVIRONMENT.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = of(server, variable).unwrap();
        proxy.map(|proxy| proxy.host().to_owned())
    }

    #[test]
    fn the_scheme_chooses_the_proxy_and_the_list_exempts() {
        let plain = Some("plain.example".to_owned());
        let secure = Some("secure.example".to_owned());
        assert_eq!(found("http://server.example"), plain);
        assert_eq!(found("https://server.example:8443"), secure);
        for inside in [
            "https://inside.example",
            "https://deep.INSIDE.example:1",
            "http://a.lab",
            "http://10.1.2.3:5000",
            "https://[fd00::7]:5000",
            "https://only.example:8443",
            "http://localhost:5000",
            "http://127.1.2.3:5000",
            "http://[::1]:5000",
        ] {
            assert_eq!(found(inside), None, "{inside}");
        }
        assert_eq!(found("https://notinside.example"), secure);
        assert_eq!(found("https://only.example"), secure);
        assert_eq!(found("http://11.1.2.3"), plain);
        assert!(is_exempt("any.example", None, "*"));
        assert!(!is_in("10.0.0.1", "10.0.0.0", "33") && is_in("1.2.3.4", "0.0.0.0", "0"));
    }

    #[test]
    fn what_is_no_proxy_is_said_without_its_password() {
        for bad in [
            "http://user:secret@",
            "socks5://user:secret@x:1",
            "::secret::",
            "http://user:secret@x:99999",
            "http://x:0",
        ] {
            let error = of("https://x.example", |_| Some(bad.to_owned())).unwrap_err();
            assert!(error.contains("https_proxy") && !error.contains("secret"));
        }
        let all = |name: &str| (name == "ALL_PROXY").then(|| "http://all.example:1".to_owned());
        let proxy = of("https://x.example", all).unwrap().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("all.example", 1));
        let nothing = of("https://x.example", |_| Some(" ".into()));
        assert!(nothing.unwrap().is_none());
    }
}
