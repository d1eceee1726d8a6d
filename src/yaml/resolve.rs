//! What a scalar means: YAML 1.1 with the patterns of Python's safe loader.

use super::Value;

/// The prefix that `!!` stands for.
const CORE: &str = "tag:yaml.org,2002:";

/// Not a number that this program can hold. Rounding it would change the job.
const TOO_LARGE: &str = "this whole number is too large (beyond 64 bits)";

/// The value of a scalar. `plain`: it stands without quotes and is no block.
pub(super) fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return if plain {
            untagged(text)
        } else {
            Ok(Value::Str(text.to_owned()))
        };
    };
    let wrong = || format!("\"{text}\" does not fit its tag {}", shown(tag));
    match tag.strip_prefix(CORE).unwrap_or(tag) {
        "!" | "str" | "timestamp" => Ok(Value::Str(text.to_owned())),
        "int" => Ok(Value::Int(integer(text)?.ok_or_else(wrong)?)),
        "float" => match (float(text), integer(text)?) {
            (Some(number), _) => Ok(Value::Float(number)),
            // Between the two 64-bit forms there is no exact way.
            (None, Some(number)) => Ok(Value::Float(number as f64)),
            (None, None) => Err(wrong()),
        },
        "bool" => Ok(Value::Bool(boolean(text).ok_or_else(wrong)?)),
        "null" if is_null(text) => Ok(Value::Null),
        "null" => Err(wrong()),
        _ => Err(unknown(tag)),
    }
}

/// Checks the tag of a list (`seq`) or a map (`map`).
pub(super) fn collection(name: &str, tag: Option<&str>) -> Result<(), String> {
    match tag {
        None | Some("!") => Ok(()),
        Some(tag) if tag.strip_prefix(CORE) == Some(name) => Ok(()),
        Some(tag) => Err(unknown(tag)),
    }
}

fn unknown(tag: &str) -> String {
    format!("the tag {} is not known here", shown(tag))
}

/// Its beginning: it may be as long as the file.
fn shown(tag: &str) -> String {
    match tag.strip_prefix(CORE) {
        Some(name) => format!("!!{name:.80}"),
        None => format!("{tag:.80}"),
    }
}

fn untagged(text: &str) -> Result<Value, String> {
    if is_null(text) {
        return Ok(Value::Null);
    }
    if let Some(value) = boolean(text) {
        return Ok(Value::Bool(value));
    }
    if let Some(number) = integer(text)? {
        return Ok(Value::Int(number));
    }
    Ok(match float(text) {
        Some(number) => Value::Float(number),
        None => Value::Str(text.to_owned()),
    })
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// None: it does not look like a whole number.
fn integer(text: &str) -> Result<Option<i64>, String> {
    let (negative, body) = sign(text);
    let digits = if let Some(bits) = body.strip_prefix("0b") {
        digits(bits, 2)
    } else if let Some(nibbles) = body.strip_prefix("0x") {
        digits(nibbles, 16)
    } else if body.starts_with('0') {
        digits(body, 8)
    } else if let Some((first, rest)) = body.split_once(':') {
        base_sixty(first, rest)
    } else {
        digits(body, 10)
    };
    let Some(digits) = digits else {
        return Ok(None);
    };
    let mut number: i64 = 0;
    for (base, digit) in digits {
        // Counted downwards, where there is one more number.
        number = number
            .checked_mul(base)
            .and_then(|shifted| shifted.checked_sub(digit))
            .ok_or(TOO_LARGE)?;
    }
    if negative {
        return Ok(Some(number));
    }
    Ok(Some(number.checked_neg().ok_or(TOO_LARGE)?))
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Digits with the factor by which each shifts what stands before it.
type Digits = Vec<(i64, i64)>;

fn digits(text: &str, radix: u32) -> Option<Digits> {
    if radix == 10 && text.starts_with('_') {
        return None;
    }
    let digits = text.chars().filter(|&c| c != '_');
    let digits = digits.map(|c| Some((i64::from(radix), i64::from(c.to_digit(radix)?))));
    digits
        .collect::<Option<Digits>>()
        .filter(|all| !all.is_empty())
}

/// `190:20:30`, as in hours, minutes and seconds.
fn base_sixty(first: &str, rest: &str) -> Option<Digits> {
    let mut all = digits(first, 10)?;
    for part in rest.split(':') {
        all.push((60, i64::from(sixtieth(part)?)));
    }
    Some(all)
}

/// `[0-5]?[0-9]`
fn sixtieth(part: &str) -> Option<u8> {
    let is_digits = part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
    part.parse().ok().filter(|&number| is_digits && number < 60)
}

/// None: it does not look like a number with a dot.
fn float(text: &str) -> Option<f64> {
    let (negative, body) = sign(text);
    let signed = |number: f64| if negative { -number } else { number };
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(signed(f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN).filter(|_| body == text),
        _ => {}
    }
    let (whole, fraction) = body.split_once('.')?;
    if let Some((first, rest)) = whole.split_once(':') {
        let all_digits = is_digits(first) && is_digits(fraction);
        let mut number = decimal(first).filter(|_| all_digits)?;
        let mut last = None;
        for part in rest.split(':') {
            number = number * 60.0 + f64::from(sixtieth(part)?);
            last = Some(part);
        }
        last?;
        return Some(signed(number + decimal(&format!("0.{fraction}"))?));
    }
    let (digits, exponent) = match fraction.find(['e', 'E']) {
        Some(at) => fraction.split_at(at),
        None => (fraction, ""),
    };
    let starts_well = if whole.is_empty() {
        // Python's pattern has no sign before a bare dot.
        body == text && digits.starts_with(|c: char| c.is_ascii_digit())
    } else {
        whole.starts_with(|c: char| c.is_ascii_digit())
    };
    let fits = starts_well && is_digits(whole) && is_digits(digits) && is_exponent(exponent);
    fits.then(|| decimal(body).map(signed))?
}

/// Digits and `_`, or nothing.
fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// Nothing, or `e` with a sign (which Python wants) and digits.
fn is_exponent(text: &str) -> bool {
    let Some(number) = text.get(1..) else {
        return true;
    };
    let digits = number.strip_prefix(['+', '-']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn decimal(text: &str) -> Option<f64> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let text: String = text.chars().filter(|&c| c != '_').collect();
    text.parse().ok().filter(|_| starts_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    #[test]
    fn plain_scalars_mean_what_python_makes_of_them() {
        use Value::{Bool, Float, Int, Null};
        for (written, meant) in [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("Null", Null),
            ("NULL", Null),
            ("nULL", text("nULL")),
            ("yes", Bool(true)),
            ("Yes", Bool(true)),
            ("YES", Bool(true)),
            ("yES", text("yES")),
            ("on", Bool(true)),
            ("True", Bool(true)),
            ("no", Bool(false)),
            ("Off", Bool(false)),
            ("FALSE", Bool(false)),
            ("y", text("y")),
            ("n", text("n")),
            ("0", Int(0)),
            ("-0", Int(0)),
            ("+12", Int(12)),
            ("010", Int(8)),
            ("-010", Int(-8)),
            ("0_1_0", Int(8)),
            ("08", text("08")),
            ("0o10", text("0o10")),
            ("0x1F", Int(31)),
            ("-0xff", Int(-255)),
            ("0X1F", text("0X1F")),
            ("0x", text("0x")),
            ("0xg", text("0xg")),
            ("0b101", Int(5)),
            ("0b102", text("0b102")),
            ("10_000", Int(10_000)),
            ("_10", text("_10")),
            ("1-2", text("1-2")),
            ("+-1", text("+-1")),
            ("-", text("-")),
            ("9223372036854775807", Int(i64::MAX)),
            ("-9223372036854775808", Int(i64::MIN)),
            ("60:30", Int(3630)),
            ("-1:1:1", Int(-3661)),
            ("1:60", text("1:60")),
            ("1:030", text("1:030")),
            ("1:", text("1:")),
            ("0:30", text("0:30")),
            ("190:20:30.15", Float(685_230.15)),
            ("0:30.5", Float(30.5)),
            ("1e5:30.", text("1e5:30.")),
            ("1.5", Float(1.5)),
            ("-1.5", Float(-1.5)),
            ("1.", Float(1.0)),
            ("1_0.5_0", Float(10.5)),
            (".5", Float(0.5)),
            ("-.5", text("-.5")),
            (".", text(".")),
            ("._5", text("._5")),
            ("1e3", text("1e3")),
            ("1.5e3", text("1.5e3")),
            ("1.5e+3", Float(1500.0)),
            ("1.5E-3", Float(0.0015)),
            ("1.5e+", text("1.5e+")),
            ("1.2.3", text("1.2.3")),
            ("10.0.0.1", text("10.0.0.1")),
            (".inf", Float(f64::INFINITY)),
            ("-.Inf", Float(f64::NEG_INFINITY)),
            ("inf", text("inf")),
            ("nan", text("nan")),
            ("-.nan", text("-.nan")),
            ("2024-02-01", text("2024-02-01")),
            ("2024-02-01 10:00:00", text("2024-02-01 10:00:00")),
            ("=", text("=")),
            ("é", text("é")),
        ] {
            assert_eq!(scalar(written, true, None), Ok(meant), "{written:?}");
            assert_eq!(scalar(written, false, None), Ok(text(written)));
        }
        let Ok(Float(number)) = scalar(".nan", true, None) else {
            panic!("not a float");
        };
        assert!(number.is_nan());
    }

    #[test]
    fn what_does_not_fit_is_not_rounded() {
        let digits = "7".repeat(1000);
        for number in ["9223372036854775808", "0x8000000000000000", &digits] {
            assert_eq!(scalar(number, true, None), Err(TOO_LARGE.to_owned()));
        }
    }

    #[test]
    fn tags_decide() {
        let tagged = |name: &str, text: &str| scalar(text, false, Some(&format!("{CORE}{name}")));
        assert_eq!(tagged("str", "010"), Ok(text("010")));
        assert_eq!(tagged("int", "010"), Ok(Value::Int(8)));
        assert_eq!(tagged("float", "5"), Ok(Value::Float(5.0)));
        assert_eq!(tagged("bool", "on"), Ok(Value::Bool(true)));
        assert_eq!(tagged("null", "~"), Ok(Value::Null));
        assert_eq!(tagged("timestamp", "2024-02-01"), Ok(text("2024-02-01")));
        assert_eq!(scalar("5", true, Some("!")), Ok(text("5")));
        for (tag, text, reason) in [
            ("int", "x", "\"x\" does not fit its tag !!int"),
            ("null", "x", "\"x\" does not fit its tag !!null"),
            ("set", "x", "the tag !!set is not known here"),
        ] {
            assert_eq!(tagged(tag, text), Err(reason.to_owned()));
        }
        assert_eq!(
            scalar("x", true, Some("!vault")),
            Err("the tag !vault is not known here".to_owned())
        );
    }
}
