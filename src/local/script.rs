//! What tests tell the server to answer, and what it remembers for them.

use super::reply::Reply;
use std::time::Instant;

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Such as `POST`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The first 64 KiB of the request's body; what is not UTF-8 as U+FFFD.
    pub request_body: String,
    /// Whether the request named its agent.
    pub has_cookie: bool,
    /// When the head of the request had come.
    pub at: Instant,
}

/// The answers to be given instead of the ordinary ones, and the exchanges.
#[derive(Debug, Default)]
pub(super) struct Script {
    lines: Vec<Line>,
    pub(super) exchanges: Vec<Exchange>,
}

#[derive(Debug)]
struct Line {
    method: String,
    pattern: String,
    times: u32,
    reply: Reply,
}

impl Script {
    /// The next so many requests that fit get this answer.
    pub(super) fn add(&mut self, method: &str, pattern: &str, times: u32, reply: Reply) {
        self.lines.push(Line {
            method: method.to_owned(),
            pattern: pattern.to_owned(),
            times,
            reply,
        });
    }

    /// The answer for a request, if the script has one.
    pub(super) fn next(&mut self, method: &str, path: &str) -> Option<Reply> {
        let fits = |line: &Line| {
            ["*", method].contains(&line.method.as_str()) && fits(&line.pattern, path)
        };
        let at = self.lines.iter().position(fits)?;
        let line = self.lines.get_mut(at)?;
        line.times = line.times.saturating_sub(1);
        let reply = line.reply.clone();
        if line.times == 0 {
            self.lines.remove(at);
        }
        Some(reply)
    }
}

/// Whether a path fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(path) = path.strip_prefix(start) else {
        return false;
    };
    (0..=path.len()).any(|at| path.get(at..).is_some_and(|path| fits(rest, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        for (pattern, path, wanted) in [
            ("/v1/job", "/v1/job", true),
            ("/v1/job", "/v1/job/x", false),
            ("/v1/result/*/artifact", "/v1/result/1-2/artifact", true),
            ("/v1/result/*/artifact", "/v1/result/1-2/log/output", false),
            ("*", "/v1", true),
            ("/v1/*/log/*", "/v1/result/1/log/output", true),
        ] {
            assert_eq!(fits(pattern, path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn answers_are_used_up_in_their_order() {
        let mut script = Script::default();
        script.add("GET", "/v1/*", 2, Reply::text(500, "a"));
        script.add("*", "/v1/job", 1, Reply::text(403, "b"));
        let mut next = |method| script.next(method, "/v1/job").map(|reply| reply.status);
        assert_eq!(next("GET"), Some(500));
        assert_eq!(next("POST"), Some(403));
        assert_eq!(next("POST"), None);
        assert_eq!(next("GET"), Some(500));
        assert_eq!(next("GET"), None);
    }
}
