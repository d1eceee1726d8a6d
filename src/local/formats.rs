//! The forms that the API's values have: identifiers, moments, durations,
//! addresses. Each is as lenient, and as strict, as the original's Python.

/// Whether Python's `uuid.UUID` takes this for one: 32 hexadecimal digits, and
/// hyphens, braces and prefixes as anybody likes.
pub(super) fn is_uuid(text: &str) -> bool {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "");
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether this is a date with a time as marshmallow 3 reads them: ISO 8601,
/// the seconds, their fraction and the zone optional.
pub(super) fn is_moment(text: &str) -> bool {
    let mut rest = text;
    let mut date = [0; 5];
    let widths = [4..=4, 1..=2, 1..=2, 1..=2, 1..=2];
    let ends: [&[char]; 5] = [&['-'], &['-'], &['T', ' '], &[':'], &[]];
    for ((number, width), end) in date.iter_mut().zip(widths).zip(ends) {
        let Some(found) = digits(&mut rest).filter(|found| width.contains(&found.len())) else {
            return false;
        };
        *number = found.parse().unwrap_or(u32::MAX);
        if !end.is_empty() {
            let Some(after) = rest.strip_prefix(end) else {
                return false;
            };
            rest = after;
        }
    }
    let [year, month, day, hour, minute] = date;
    if year == 0 || day == 0 || day > days(year, month) || hour > 23 || minute > 59 {
        return false;
    }
    if let Some(after) = rest.strip_prefix(':') {
        rest = after;
        let Some(seconds) = digits(&mut rest) else {
            return false;
        };
        if seconds.len() > 2 || seconds.parse().unwrap_or(u32::MAX) > 59 {
            return false;
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            if digits(&mut rest).is_none_or(|fraction| fraction.len() > 12) {
                return false;
            }
        }
    }
    is_zone(rest)
}

/// Nothing, `Z`, `+01`, `+0100` or `+01:00`.
fn is_zone(text: &str) -> bool {
    let Some(offset) = text.strip_prefix(['+', '-']) else {
        return text.is_empty() || text == "Z";
    };
    let (hours, minutes) = match offset.len() {
        2 => (offset, "00"),
        4 | 5 if offset.is_ascii() => {
            let (hours, minutes) = offset.split_at(2);
            if offset.len() == 4 {
                (hours, minutes)
            } else {
                (hours, minutes.strip_prefix(':').unwrap_or_default())
            }
        }
        _ => return false,
    };
    let below = |text: &str, end: u32| {
        text.len() == 2
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse().is_ok_and(|number: u32| number < end)
    };
    below(hours, 24) && below(minutes, 60)
}

fn days(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 0,
    }
}

/// Takes the digits at the start, if there are any.
fn digits<'a>(text: &mut &'a str) -> Option<&'a str> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    *text = rest;
    (length > 0).then_some(digits)
}

/// The seconds of a duration such as `90`, `30m`, `1h 30min` or `2days`.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(plain) = integer(&text) {
        return (plain >= 0).then_some(plain);
    }
    let mut rest = text.as_str();
    let mut total = 0i64;
    while !rest.is_empty() {
        let count: i64 = digits(&mut rest)?.parse().ok()?;
        rest = rest.trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = rest.split_at(letters);
        let unit = match unit {
            "s" | "sec" | "secs" => 1,
            "m" | "min" | "mins" => 60,
            "h" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            _ => return None,
        };
        total = total.checked_add(count.checked_mul(unit)?)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

/// A whole number in a string, as Python's `int` reads it.
pub(super) fn integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// Whether marshmallow takes this for an address: a known scheme, and a host
/// that is `localhost`, an IP address or a name with a dot.
pub(super) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let known = ["http", "https", "ftp", "ftps"];
    if !known.contains(&scheme.to_ascii_lowercase().as_str()) || rest.contains(char::is_whitespace)
    {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if let Some(address) = host.strip_prefix('[') {
        let address = address.split(']').next().unwrap_or_default();
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (host, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    port.parse::<u16>().is_ok()
        && (host.eq_ignore_ascii_case("localhost")
            || host.contains('.') && host.split('.').all(is_label))
}

/// Whether a JSON text names half of a surrogate pair (`\ud83d` without
/// `\ude00`), which Python reads and the database cannot store.
pub(super) fn has_lone_surrogate(json: &str) -> bool {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return false;
    }
    let mut rest = json;
    let mut high = false;
    while let Some(at) = rest.find('\\') {
        high = high && at == 0;
        let escape = rest.get(at + 1..).unwrap_or_default();
        let unit = escape.strip_prefix('u').and_then(|hex| hex.get(..4));
        match unit.and_then(|hex| u16::from_str_radix(hex, 16).ok()) {
            Some(0xd800..=0xdbff) if !high => high = true,
            Some(0xdc00..=0xdfff) if high => high = false,
            Some(0xd800..=0xdfff) => return true,
            _ if high => return true,
            _ => {}
        }
        let length = if unit.is_some() { 5 } else { 1 };
        rest = escape.get(length..).unwrap_or_default();
        if high && !rest.starts_with('\\') {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let id = "4a01916a-c18b-4c2c-87bb-7da770768044";
        assert!(is_uuid(id) && is_uuid(&id.replace('-', "")));
        assert!(is_uuid(&format!("urn:uuid:{{{id}}}")));
        for text in ["", "x", "../../etc", "4a01916a-c18b-4c2c-87bb-7da77076804g"] {
            assert!(!is_uuid(text), "{text}");
        }
    }

    #[test]
    fn moments() {
        for text in [
            "2026-11-22T10:49:01.591455+00:00",
            "2026-11-22 10:49",
            "2026-2-3T1:2:3Z",
            "2024-02-29T10:49:01-0130",
            "2026-11-22T10:49:01.123456789012+01",
        ] {
            assert!(is_moment(text), "{text}");
        }
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T",
            "20261122T104901",
            "2026-02-29T10:49",
            "2026-13-01T10:49",
            "2026-11-22T24:00",
            "2026-11-22T10:49:60",
            "2026-11-22T10:49:01.",
            "2026-11-22T10:49:01+1",
            "2026-11-22T10:49:01 UTC",
            "1795344541",
        ] {
            assert!(!is_moment(text), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("90", 90),
            ("30m", 1_800),
            ("1h30m", 5_400),
            (" 2 Days 1 hour", 176_400),
        ] {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
        for text in ["", "-5", "1.5h", "h", "5w", "1h30"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in [
            "http://localhost/x",
            "https://u:p@example.org:8080/a?b",
            "http://10.0.0.1:80",
            "http://[::1]/",
        ] {
            assert!(is_url(text), "{text}");
        }
        for text in [
            "",
            "http://x/y",
            "x",
            "gopher://a.b",
            "http://a.b:x/",
            "http://a..b/ ",
        ] {
            assert!(!is_url(text), "{text}");
        }
    }

    #[test]
    fn surrogates() {
        for text in [
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            "\"😀\"",
            r#""\u00e9\n""#,
        ] {
            assert!(!has_lone_surrogate(text), "{text}");
        }
        for text in [
            r#""\ud800""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d \ude00""#,
            r#""\ud83d\n\ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\uD83Dx""#,
        ] {
            assert!(has_lone_surrogate(text), "{text}");
        }
    }
}
