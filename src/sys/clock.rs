//! The two clocks: one for deadlines, one for people.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, SystemTimeError, UNIX_EPOCH};

/// A moment on both clocks. Deadlines look at `steady` only; `wall` may jump by
/// years (a board without a clock gets the time from the network) and is only
/// ever written down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never jumps.
    pub steady: Instant,
    /// What the board believes the date to be.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    #[must_use]
    pub fn read() -> Now {
        Now {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// This moment and so much later, on both clocks.
    #[must_use]
    pub fn after(self, time: Duration) -> Now {
        Now {
            steady: self.steady + time,
            wall: self.wall + time,
        }
    }

    /// By how much one clock went further than the other until `later`: it was
    /// set meanwhile.
    #[must_use]
    pub fn differs(self, later: Now) -> Duration {
        let steady = later.steady.saturating_duration_since(self.steady);
        let back = |error: SystemTimeError| error.duration() + steady;
        let wall = later.wall.duration_since(self.wall);
        wall.map_or_else(back, |wall| wall.abs_diff(steady))
    }
}

/// What the steady clock shows (`CLOCK_MONOTONIC`, that of [`Instant`]), for
/// whoever reads the same clock.
#[must_use]
pub fn monotonic() -> Duration {
    // SAFETY: a zeroed timespec is valid, and clock_gettime writes nothing else.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now
    };
    #[allow(
        clippy::useless_conversion,
        reason = "a time_t has 32 bits on some targets"
    )]
    let seconds = u64::try_from(i64::from(now.tv_sec)).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A date and time in the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Such as 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to `999_999`.
    pub microsecond: u32,
}

/// Seconds since 1970 and the microseconds after them, also before 1970.
fn since_epoch(time: SystemTime) -> (i64, u32) {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(0);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (seconds(after), after.subsec_micros()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_micros() {
                0 => (-seconds(before), 0),
                micros => (-seconds(before) - 1, 1_000_000 - micros),
            }
        }
    }
}

/// The calendar of seconds since 1970, in 64 bits on every target (Howard
/// Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn calendar(seconds: i64, microsecond: u32) -> Calendar {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    let of_day = seconds.rem_euclid(86_400);
    Calendar {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: small(month),
        day: small(of_year - (153 * shifted + 2) / 5 + 1),
        hour: small(of_day / 3_600),
        minute: small(of_day / 60 % 60),
        second: small(of_day % 60),
        microsecond,
    }
}

/// The moment in UTC as ISO 8601, as in `2026-11-22T10:49:01.591455+00:00`.
#[must_use]
pub fn iso8601(time: SystemTime) -> String {
    let (seconds, microsecond) = since_epoch(time);
    let at = calendar(seconds, microsecond);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond
    );
    text
}

/// The moment in the board's time zone.
#[must_use]
pub fn local(time: SystemTime) -> Calendar {
    let (seconds, microsecond) = since_epoch(time);
    calendar(seconds + zone_offset(seconds), microsecond)
}

/// Seconds east of UTC. A `time_t` may have 32 bits: a moment that it cannot
/// hold gets the offset of the last one that it can.
fn zone_offset(seconds: i64) -> i64 {
    // Its type differs between targets; musl's has no name that may be used.
    let time = seconds.clamp(0, i64::from(i32::MAX)) as _;
    // SAFETY: a zeroed tm is valid (its zone pointer is null); localtime_r reads
    // `time`, writes `fields` and is given nothing else.
    let fields = unsafe {
        let mut fields: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const time, &raw mut fields).is_null() {
            return 0;
        }
        fields
    };
    #[allow(
        clippy::useless_conversion,
        reason = "a long has 32 bits on the small boards"
    )]
    i64::from(fields.tm_gmtoff)
}

/// The moment of an HTTP date in its usual form (RFC 9110, section 5.6.7), such as
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let number = |text: &str, most: u64| {
        let number: u64 = text.parse().ok()?;
        (number <= most).then_some(number)
    };
    let day = number(words.next()?, 31)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year = number(words.next()?, 9_999)?;
    let mut time = words.next()?.split(':');
    // A leap second is one.
    let mut part = |most| number(time.next()?, most);
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    if words.next() != Some("GMT") || year < 1970 || day == 0 {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March.
    let (y, m) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        let seconds = |text: &str| {
            let date = http_date(text)?;
            Some(date.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
        assert_eq!(
            seconds("Mon, 01 Mar 2100 00:00:00 GMT"),
            Some(4_107_542_400)
        );
        assert_eq!(
            seconds("Sat, 31 Dec 2016 23:59:60 GMT"),
            Some(1_483_228_800)
        );
        for odd in [
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 0:0:9223372036854775808 GMT",
            "Sun, 06 Nov 1994 0:9223372036854775808:0 GMT",
            "Sun, 06 Nov 1994 18446744073709551615:0:0 GMT",
            "Sun, 06 Nov 18446744073709551615 0:0:0 GMT",
            "Sun, 06 Nov 9223372036854775808 0:0:0 GMT",
            "Sun, 18446744073709551615 Nov 1994 0:0:0 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:00:61 GMT",
            "Sun, 00 Nov 1994 08:00:00 GMT",
            "Sun, 06 Nov 1969 08:00:00 GMT",
        ] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
    }

    #[test]
    fn row_16_dates_are_right_before_1970_and_after_2038() {
        let at = |seconds: i64| {
            let duration = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 {
                iso8601(UNIX_EPOCH - duration)
            } else {
                iso8601(UNIX_EPOCH + duration)
            }
        };
        assert_eq!(at(0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(at(-1), "1969-12-31T23:59:59.000000+00:00");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000+00:00");
        assert_eq!(at(1_795_344_541), "2026-11-22T10:49:01.000000+00:00");
        assert_eq!(at(2_147_483_648), "2038-01-19T03:14:08.000000+00:00");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000+00:00");
        let half = UNIX_EPOCH - Duration::from_micros(250_000);
        assert_eq!(iso8601(half), "1969-12-31T23:59:59.750000+00:00");
    }
}
