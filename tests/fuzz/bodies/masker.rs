//! The masker: the same however the text is cut, and no secret comes through.

use super::pieces;
use std::sync::Arc;
use testflinger_agent::child::{Masker, Secrets};

fn masked<'a>(secrets: &Arc<Secrets>, text: impl Iterator<Item = &'a str>) -> String {
    let mut masker = Masker::new(Arc::clone(secrets));
    let mut masked: String = text.map(|piece| masker.push(piece.to_owned())).collect();
    masked.push_str(&masker.finish());
    masked
}

/// Whether a secret could stand in a mask, or come to be between one and the text
/// around it.
fn is_like_a_mask(secret: &str) -> bool {
    secret.contains('*') || secret.chars().all(|c| c.is_ascii_hexdigit())
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
    for lengths in [&[1][..], &[2, 3, 1], &[7, 1], &[64]] {
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
    let none = Arc::new(Secrets::new([""]));
    assert_eq!(masked(&none, std::iter::once(text)), text);
}
