//! The JSON scanner: however a text is cut, it is the same; and what it lets through
//! can be read and written again.

use super::{own_lengths, pieces};
use testflinger_agent::json::{Error, Json, Kind, MAX_DEPTH, Object, Scanner};

/// What the scanner says of a text that comes in pieces.
fn scanned<'a>(text: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), Error>) {
    let mut scanner = Scanner::new();
    let mut tokens = Vec::new();
    let mut sink = |depth: u32, token: testflinger_agent::json::Token<'_>| {
        assert!(depth <= MAX_DEPTH);
        tokens.push(format!("{depth} {token:?}"));
    };
    for piece in text {
        if let Err(error) = scanner.push(piece, &mut sink) {
            return (tokens, Err(error));
        }
    }
    let end = scanner.finish(&mut sink);
    (tokens, end)
}

/// Looks at everything in it.
fn visit(json: Json<'_>, depth: u32) {
    assert!(depth <= MAX_DEPTH);
    assert!(Json::parse(json.text()).is_ok());
    let _ = (
        json.string(),
        json.integer(),
        json.boolean(),
        json.is_empty(),
    );
    match json.kind() {
        Kind::Object => {
            for (name, value) in json.members() {
                assert!(json.get(&name).is_some());
                visit(value, depth + 1);
            }
        }
        Kind::Array => json.items().for_each(|item| visit(item, depth + 1)),
        _ => {}
    }
}

pub fn try_it(data: &[u8]) {
    let whole = scanned(std::iter::once(data));
    for lengths in [&[1][..], &[2, 3, 1], &own_lengths(data)] {
        assert_eq!(scanned(pieces(data, lengths)), whole);
    }
    let Ok(json) = Json::from_bytes(data) else {
        assert!(whole.1.is_err() || std::str::from_utf8(data).is_err());
        return;
    };
    visit(json, 0);
    let again = json.rewritten(&str::to_owned);
    let again = Json::parse(&again).unwrap();
    assert_eq!(again.kind(), json.kind());
    assert_eq!(scanned(std::iter::once(again.text().as_bytes())), whole);
    // A lone surrogate becomes another character once, and stays that.
    assert_eq!(again.rewritten(&str::to_owned), again.text());
    let mut object = Object::new();
    object.json("a", json);
    object.string("b", &String::from_utf8_lossy(data));
    let text = object.finish();
    let object = Json::parse(&text).map(|object| object.get("b").unwrap().string());
    // One level more may be one too many.
    if let Ok(string) = object {
        assert_eq!(string.unwrap().as_bytes(), data);
    }
}
