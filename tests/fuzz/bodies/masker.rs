//! The masker: the same however the text is cut, and no secret comes through.

use super::{own_lengths, pieces};
use std::sync::Arc;
use testflinger_agent::child::{Masker, Secrets};

fn masked<'a>(secrets: &Arc<Secrets>, text: impl Iterator<Item = &'a str>) -> String {
    let mut masker = Masker::new(Arc::clone(secrets));
    let mut masked: String = text.map(|piece| masker.push(piece.to_owned())).collect();
    masked.push_str(&masker.finish());
    masked
}

/// Whether a secret could stand in a mask (`**012def**`), or come to be between one and
/// the text around it.
fn is_like_a_mask(secret: &str) -> bool {
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    secret.contains('*') || secret.len() <= 6 && secret.chars().all(is_digit)
}

/// Whole characters of base64 (RFC 4648), bit by bit: slowly, and not as the masker
/// does it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let value = |at: usize| (at * 6..at * 6 + 6).fold(0, |value, at| value << 1 | bit(at));
    let values = (0..bytes.len() * 8 / 6).map(value);
    values.map(|value| char::from(ALPHABET[value])).collect()
}

/// A text that holds secrets in base64, each after so many other bytes; and the parts
/// of it that they alone determine.
fn in_base64(secrets: &[String]) -> (String, Vec<String>) {
    let (mut text, mut parts) = (String::new(), Vec::new());
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        for before in 0..3 {
            let message = [&b"xyz"[..before], secret.as_bytes(), b"xyz"].concat();
            let encoded = base64(&message);
            let (start, end) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
            parts.push(encoded[start..end].to_owned());
            text += &encoded;
            text += "\n";
        }
    }
    (text, parts)
}

/// The secrets stand in the first line, with tabs between them; `\r` in one of them
/// stands for the end of a line.
pub fn try_it(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (names, text) = text.split_once('\n').unwrap_or((&text, ""));
    let names: Vec<String> = names
        .split('\t')
        .map(|name| name.replace('\r', "\n"))
        .collect();
    let secrets = Arc::new(Secrets::new(names.iter().map(String::as_str)));
    let whole = masked(&secrets, std::iter::once(text));
    for lengths in [&[1][..], &[2, 3, 1], &[64], &own_lengths(data)] {
        let cut: Vec<_> = pieces(text.as_bytes(), lengths).collect();
        // At the ends of characters.
        let mut held = Vec::new();
        let cut = cut.into_iter().filter_map(|piece| {
            held.extend_from_slice(piece);
            let piece = String::from_utf8(held.clone()).ok()?;
            held.clear();
            Some(piece)
        });
        let cut: Vec<String> = cut.collect();
        let cut = masked(&secrets, cut.iter().map(String::as_str));
        assert_eq!(cut, whole, "{names:?}");
    }
    for name in &names {
        let is_hidden = name.is_empty() || is_like_a_mask(name) || !whole.contains(name);
        assert!(is_hidden, "{name:?} in {whole:?}");
    }
    let (encoded, parts) = in_base64(&names);
    let encoded = secrets.masked(&encoded);
    for part in parts {
        let is_seen = encoded.contains(&part) || whole.contains(&part);
        assert!(!is_seen, "{part:?} in {encoded:?} or {whole:?}");
    }
    // What no form of a secret can stand in is left as it is, and so is all of it where
    // there is no mask.
    assert!(whole.contains("**") || whole == text, "{whole:?}");
    let is_strange = |c: &char| !c.is_ascii() && !names.iter().any(|name| name.contains(*c));
    let strange: String = text.chars().filter(is_strange).collect();
    assert_eq!(secrets.masked(&strange), strange);
}
