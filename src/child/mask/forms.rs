//! The forms in which a secret shows in output.

use crate::json::escape_into;

/// A line of a secret that is shorter, in characters, says little by itself, and
/// may be anything: `{`, `---`, an empty one.
const SHORTEST_LINE: usize = 8;
/// A secret that is shorter, in bytes, has base64 forms that are too short to be
/// known for what they are.
const SHORTEST_IN_BASE64: usize = 8;

/// What is looked for besides the secret itself: with the line ends of a terminal
/// or without them, its lines, as JSON, Python and Rust write it, its base64. A line end at
/// its end belongs to the file that it comes from, and the shell leaves it away.
pub(super) fn others(secret: &str) -> Vec<String> {
    let mut forms = forms_of(secret);
    let inside = secret.trim_matches(['\r', '\n']);
    if inside.len() < secret.len() && !inside.is_empty() {
        forms.push(inside.to_owned());
        forms.extend(forms_of(inside));
    }
    forms
}

fn forms_of(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    if secret.contains('\n') {
        let plain = secret.replace("\r\n", "\n");
        forms.push(plain.replace('\n', "\r\n"));
        let lines = plain.split('\n');
        let long = lines.filter(|line| line.chars().count() >= SHORTEST_LINE);
        forms.extend(long.map(str::to_owned));
        forms.push(plain);
    }
    let mut json = String::new();
    escape_into(&mut json, secret);
    // Python escapes whatever is not ASCII.
    forms.push(ascii(&json));
    forms.push(json);
    forms.push(repr(secret));
    // As this agent quotes the names of files and programs.
    let quoted = format!("{secret:?}");
    forms.extend(
        quoted
            .strip_prefix('"')
            .and_then(|quoted| quoted.strip_suffix('"'))
            .map(str::to_owned),
    );
    if secret.len() >= SHORTEST_IN_BASE64 {
        for before in 0..3 {
            let form = base64(secret.as_bytes(), before);
            // RFC 4648, section 5: for addresses and file names.
            forms.push(form.replace('+', "-").replace('/', "_"));
            forms.push(form);
        }
    }
    forms
}

/// As Python shows a string in a traceback, without its quotes: `repr`.
fn repr(secret: &str) -> String {
    let quote = match secret.contains('\'') && !secret.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut repr = String::with_capacity(secret.len());
    for c in secret.chars() {
        match c {
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            c if c == '\\' || c == quote => repr.extend(['\\', c]),
            c if c.is_control() => repr.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => repr.push(c),
        }
    }
    repr
}

fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for unit in json.encode_utf16() {
        match u8::try_from(unit).ok().filter(u8::is_ascii) {
            Some(byte) => ascii.push(byte.into()),
            None => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    ascii
}

/// The secret in base64 (RFC 4648) where it follows on so many bytes that are not
/// known, modulo 3: the characters that it alone determines.
fn base64(secret: &[u8], before: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // What stands before it takes part in this many characters.
    let skipped = (before * 8).div_ceil(6);
    let (mut bits, mut count) = (0u32, before * 8 % 6);
    // Of a character that it begins with, only the end is in the secret.
    let mut lacking = before > 0;
    let mut form = String::with_capacity(secret.len() / 3 * 4 + skipped);
    for byte in secret {
        bits = (bits << 8 | u32::from(*byte)) & 0xffff;
        count += 8;
        while count >= 6 {
            count -= 6;
            let value = (bits >> count) & 63;
            if !std::mem::take(&mut lacking) {
                form.push(ALPHABET[value as usize].into());
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10, and the same text further on in a message.
    #[test]
    fn base64_is_what_the_text_alone_determines() {
        assert_eq!(base64(b"foobar", 0), "Zm9vYmFy");
        // The third byte's last four bits wait for another one.
        assert_eq!(base64(b"fooba", 0), "Zm9vYm");
        // "?foobar" is P2Zvb2Jhcg==: the first four bits of f go with the ?.
        assert_eq!(base64(b"foobar", 1), "Zvb2Jhc");
        // "??foobar" is Pz9mb29iYXI=.
        assert_eq!(base64(b"foobar", 2), "mb29iYX");
    }

    #[test]
    fn lines_and_line_ends_are_forms_of_a_secret_that_has_them() {
        let forms = others("short\n123456789\r\nzwölfte");
        assert_eq!(forms[0], "short\r\n123456789\r\nzwölfte");
        assert_eq!(forms[1], "123456789");
        assert_eq!(forms[2], "short\n123456789\nzwölfte");
        assert_eq!(forms.len(), 3 + 4 + 6);
    }

    #[test]
    fn a_secret_out_of_a_file_is_one_without_the_end_of_its_line() {
        for secret in ["kurz\n", "kurz\r\n", "\nkurz\n\n"] {
            assert!(others(secret).contains(&"kurz".to_owned()), "{secret:?}");
        }
        let forms = others("hunter2222\n");
        let inside = base64(b"hunter2222", 0);
        assert!(forms.contains(&inside), "{forms:?}");
        let empty = |form: &String| form.trim_matches(['\r', '\n']).is_empty();
        assert!(
            !others("\n")
                .iter()
                .any(|form| form.is_empty() || form.len() == 1 && !empty(form))
        );
    }

    #[test]
    fn what_python_shows_is_a_form() {
        for (secret, shown) in [
            ("a\"b\\c", "a\"b\\\\c"),
            ("it's", "it's"),
            ("it's \"x\"", "it\\'s \"x\""),
            ("a\tb\u{1b}", "a\\tb\\x1b"),
        ] {
            assert_eq!(repr(secret), shown);
        }
    }

    #[test]
    fn what_json_escapes_is_a_form() {
        let forms = others("a\"é🦀\n");
        assert!(forms.contains(&"a\\\"\\u00e9\\ud83e\\udd80\\n".to_owned()));
        assert!(forms.contains(&"a\\\"é🦀\\n".to_owned()));
        assert!(others("pa\u{308}ss\u{1b}").contains(&"pa\\u{308}ss\\u{1b}".to_owned()));
        assert_eq!(others("seven77"), ["seven77"; 4], "nothing new");
    }
}
